//! How many architectures there are, against the published sizes and independent counts.

use std::collections::{HashMap, HashSet};

use super::*;

#[test]
fn spaces_have_their_published_sizes() {
    for (v, topologies, nodes) in [(S1, 180.0, 4), (S2, 360.0, 4), (S3, 5400.0, 5)] {
        assert_eq!(
            v.spec().unwrap().size(),
            topologies * 3f64.powi(nodes),
            "{}",
            v.name
        );
    }
    let widths: Vec<Vec<usize>> = VARIANTS
        .iter()
        .map(|v| {
            v.spec().unwrap().groups()[INPUTS]
                .rows
                .iter()
                .map(|r| r.candidates.len())
                .collect()
        })
        .collect();
    assert_eq!(widths, [vec![3, 4], vec![2, 3, 4], vec![2, 3, 4, 5]]);
}

/// Distinct cells without loose ends, blocks keeping their numbers: topologies, with operations, and up to isomorphism.
fn distinct(v: Variant) -> [usize; 3] {
    let space = space(v);
    let (mut topologies, mut labelled) = (HashSet::new(), HashSet::new());
    let mut classes = HashSet::new();
    let mut seen = HashMap::new();
    for choice in space.spec.enumerate() {
        // Whether this topology is the first of its kind, and which of its blocks are used.
        let key = (
            choice.groups()[INPUTS].clone(),
            choice.groups()[OUTPUT].clone(),
        );
        let (first, used) = seen.entry(key).or_insert_with(|| {
            let (matrix, _) = nasbench101(&space.genotype(&choice).cells[0]);
            let used = matrix
                .iter()
                .map(|row| row.contains(&1))
                .collect::<Vec<_>>();
            (topologies.insert(matrix.concat()), used)
        });
        // Operations of blocks that are not used don't tell cells apart.
        let mut ops = choice.groups()[OPS].iter().zip(&used[1..]);
        if !*first || ops.any(|(op, used)| !used && op != &[0]) {
            continue;
        }
        let (matrix, labels) = nasbench101(&space.genotype(&choice).cells[0]);
        labelled.insert((matrix.concat(), labels.concat()));
        classes.insert(ModelSpec::from_matrix(&matrix, &labels).unwrap().hash());
    }
    [topologies.len(), labelled.len(), classes.len()]
}

#[test]
fn cells_without_loose_ends_are_as_many_as_counted_independently() {
    assert_eq!(distinct(S1), [66, 3_702, 2_685]);
    assert_eq!(distinct(S2), [190, 12_474, 7_773]);
}

#[test]
fn cells_of_space_3_are_as_many_as_counted_independently() {
    assert_eq!(distinct(S3), [876, 135_900, 55_854]);
}
