//! How many architectures there are, against the published sizes and independent counts.

use std::collections::HashSet;

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
    for choice in space.spec.enumerate() {
        let (matrix, mut labels) = nasbench101(&space.genotype(&choice).cells[0]);
        for (vertex, label) in labels
            .iter_mut()
            .enumerate()
            .take(v.blocks.len() + 1)
            .skip(1)
        {
            // Operations of blocks that are not used don't tell cells apart.
            if matrix[vertex].iter().all(|&edge| edge == 0) {
                *label = OPERATIONS[0].into();
            }
        }
        topologies.insert(matrix.concat());
        if labelled.insert((matrix.concat(), labels.concat())) {
            classes.insert(ModelSpec::from_matrix(&matrix, &labels).unwrap().hash());
        }
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
