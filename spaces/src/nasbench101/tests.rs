#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;

use flate2::read::GzDecoder;
use proptest::prelude::*;

use super::{ModelSpec, Operation, SpecError};

/// Says that this test, after whose name its thread is called, can't run here; in the list that
/// `cargo xtask test` prints at its end, too.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIPPED: {}: {reason}\n", thread.name().unwrap_or("?"));
    print!("{line}");
    if let Some(log) = std::env::var_os("NASFW_SKIP_LOG") {
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }
}

/// The development data, which is not part of the project.
pub(crate) fn data(file: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("NASFW_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    let Ok(packed) = std::fs::read(folder.join(file)) else {
        skip(&format!(
            "{file} is not in {}; set NASFW_TEST_DATA to its folder",
            folder.display()
        ));
        return None;
    };
    let mut bytes = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

/// Operations of `inner` vertices from the digits of a number in base 3, the most significant one
/// first.
fn operations(digits: u32, inner: usize) -> Vec<Operation> {
    (0..inner)
        .rev()
        .map(|k| Operation::ALL[(digits / 3u32.pow(k as u32) % 3) as usize])
        .collect()
}

/// Bit of the edge x → y, written independently of the code under test: pairs are counted column by
/// column.
fn position(x: usize, y: usize) -> usize {
    (1..y).sum::<usize>() + x
}

/// The smallest (edges, operations) over all renumberings of the inner vertices: equal for
/// isomorphic graphs only.
fn canonical(
    n: usize,
    bits: u32,
    ops: &[Operation],
    orders: &[Vec<usize>],
) -> (u64, Vec<Operation>) {
    let edges: Vec<(usize, usize)> = (0..n)
        .flat_map(|y| (0..y).map(move |x| (x, y)))
        .filter(|&(x, y)| bits >> position(x, y) & 1 == 1)
        .collect();
    orders
        .iter()
        .map(|order| {
            let to = |v: usize| {
                if v == 0 || v == n - 1 {
                    v
                } else {
                    order[v - 1] + 1
                }
            };
            let square = edges
                .iter()
                .map(|&(x, y)| 1u64 << (to(x) * n + to(y)))
                .sum();
            let mut relabelled = ops.to_vec();
            order
                .iter()
                .zip(ops)
                .for_each(|(&v, &op)| relabelled[v] = op);
            (square, relabelled)
        })
        .min()
        .unwrap()
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    permutations(n - 1)
        .into_iter()
        .flat_map(|shorter| {
            (0..n).map(move |at| {
                let mut longer = shorter.clone();
                longer.insert(at, n - 1);
                longer
            })
        })
        .collect()
}

/// One representative per isomorphism class of cells with exactly `n` vertices; `visit` sees every
/// labelled graph.
fn classes(
    n: usize,
    mut visit: impl FnMut(&ModelSpec, &(u64, Vec<Operation>)),
) -> HashMap<(u64, Vec<Operation>), ModelSpec> {
    let orders = permutations(n - 2);
    let mut classes = HashMap::new();
    for bits in 0..1u32 << (n * (n - 1) / 2) {
        for digits in 0..3u32.pow(n as u32 - 2) {
            let ops = operations(digits, n - 2);
            match ModelSpec::new(bits, &ops) {
                Ok(spec) if spec.vertices() == n => {
                    let class = canonical(n, bits, &ops, &orders);
                    visit(&spec, &class);
                    classes.entry(class).or_insert(spec);
                }
                Ok(_) => break, // pruned: whatever the operations are
                Err(_) => break,
            }
        }
    }
    classes
}

#[test]
fn hash_tells_apart_exactly_the_non_isomorphic_graphs_of_up_to_5_vertices() {
    let mut total = Vec::new();
    let mut by_hash = HashMap::new();
    for n in 2..=5 {
        classes(n, |spec, class| {
            let earlier = by_hash.entry(spec.hash()).or_insert_with(|| class.clone());
            assert_eq!(earlier, class, "one hash for two classes: {spec:?}");
        });
        total.push(by_hash.len());
    }
    // Equal to the number of classes: isomorphic graphs never had two hashes.
    assert_eq!(total, [1, 7, 91, 2_532]);
    assert_eq!(
        (2..=5).map(|n| classes(n, |_, _| ()).len()).sum::<usize>(),
        2_532
    );
}

#[test]
fn there_are_as_many_six_vertex_cells_as_published_and_all_hashes_differ() {
    let classes = classes(6, |_, _| ());
    assert_eq!(classes.len(), 64_542 - 2_532);
    let hashes: HashSet<String> = classes.values().map(ModelSpec::hash).collect();
    assert_eq!(hashes.len(), classes.len());
}

#[test]
fn the_whole_published_space_is_sorted_by_our_hash() {
    let Some(models) = data("nasbench101_space.bin.gz") else {
        return;
    };
    let mut by_vertices = BTreeMap::new();
    let mut previous = String::new();
    for (k, model) in models.chunks_exact(6).enumerate() {
        let bits = u32::from_le_bytes(model[..4].try_into().unwrap());
        let ops = operations(model[5].into(), usize::from(model[4]) - 2);
        let spec = ModelSpec::new(bits, &ops).unwrap();
        assert_eq!(
            (spec.bits(), spec.operations()),
            (bits, &ops[..]),
            "model {k} was pruned"
        );
        let hash = spec.hash();
        assert!(
            previous < hash,
            "model {k}: {previous} is followed by {hash}"
        );
        previous = hash;
        *by_vertices.entry(spec.vertices()).or_insert(0) += 1;
    }
    let mut sum = 0;
    let up_to: Vec<usize> = by_vertices
        .values()
        .map(|n| {
            sum += n;
            sum
        })
        .collect();
    assert_eq!(up_to, [1, 7, 91, 2_532, 64_542, 423_624]);
}

#[test]
fn published_models_have_their_published_hashes() {
    let Some(table) = data("nasbench101_subset.csv.gz") else {
        return;
    };
    let table = String::from_utf8(table).unwrap();
    let mut rows = 0;
    for row in table.lines().skip(1) {
        let fields: Vec<&str> = row.split(',').collect();
        let ops: Vec<Operation> = fields[3]
            .bytes()
            .map(|digit| Operation::ALL[usize::from(digit - b'0')])
            .collect();
        let spec = ModelSpec::new(fields[2].parse().unwrap(), &ops).unwrap();
        assert_eq!(
            spec.vertices(),
            fields[1].parse::<usize>().unwrap(),
            "{row}"
        );
        assert_eq!(spec.hash(), fields[0], "{row}");
        rows += 1;
    }
    assert_eq!(rows, 30_001);
}

#[test]
fn two_published_models() {
    for (hash, bits, digits) in [
        (
            "00005c142e6f48ac74fdcf73e3439874",
            1_205_349,
            [0, 2, 0, 0, 1],
        ),
        (
            "0000718c96730a92ea6d5242f8ce77e2",
            1_335_845,
            [1, 1, 0, 1, 0],
        ),
    ] {
        let spec = ModelSpec::new(bits, &digits.map(|d: usize| Operation::ALL[d])).unwrap();
        assert_eq!(spec.hash(), hash);
        let again = ModelSpec::from_matrix(&spec.matrix(), &spec.labels()).unwrap();
        assert_eq!(again, spec);
        let json = serde_json::to_value(&spec).unwrap();
        assert_eq!(json["hash"], hash);
        assert_eq!(json["ops"][0], "input");
        assert_eq!(json["matrix"][0].as_array().unwrap().len(), 7);
    }
}

/// A random graph on 2 to 7 vertices with a random numbering of its inner vertices that is again
/// topological.
fn relabelled_pair() -> impl Strategy<Value = (ModelSpec, ModelSpec)> {
    (2usize..=7)
        .prop_flat_map(|n| {
            let keys = proptest::collection::vec(any::<u32>(), n);
            let digits = proptest::collection::vec(0usize..3, n - 2);
            (Just(n), 0u32..1 << (n * (n - 1) / 2), digits, keys)
        })
        .prop_filter_map("not a cell", |(n, bits, digits, keys)| {
            let ops: Vec<Operation> = digits.iter().map(|&d| Operation::ALL[d]).collect();
            let spec = ModelSpec::new(bits, &ops).ok()?;
            // Random topological order: of the vertices whose predecessors are placed, take the one
            // with the least key.
            let edge = |x: usize, y: usize| x < y && bits >> position(x, y) & 1 == 1;
            let mut order = vec![0];
            while order.len() < n - 1 {
                let free = |&v: &usize| {
                    !order.contains(&v) && (0..v).all(|w| !edge(w, v) || order.contains(&w))
                };
                order.push((1..n - 1).filter(free).min_by_key(|&v| keys[v])?);
            }
            order.push(n - 1);
            let mut moved = 0;
            for y in 1..n {
                for x in 0..y {
                    if edge(order[x], order[y]) {
                        moved |= 1 << position(x, y);
                    }
                }
            }
            let moved_ops: Vec<Operation> = order[1..n - 1].iter().map(|&v| ops[v - 1]).collect();
            Some((spec, ModelSpec::new(moved, &moved_ops).unwrap()))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn hash_ignores_the_numbering((one, two) in relabelled_pair()) {
        prop_assert_eq!(one.hash(), two.hash());
        prop_assert_eq!((one.vertices(), one.edges()), (two.vertices(), two.edges()));
    }

    #[test]
    fn pruning_keeps_exactly_the_paths(
        bits in 0u32..1 << 21,
        digits in proptest::array::uniform5(0usize..3),
    ) {
        // Brute force: walk every path from 0 to 6; the vertices and edges seen are what a cell
        // keeps.
        let edge = |x: usize, y: usize| x < y && bits >> position(x, y) & 1 == 1;
        let mut seen: HashSet<(usize, usize)> = HashSet::new();
        let mut paths = vec![vec![0]];
        while let Some(path) = paths.pop() {
            let end = path[path.len() - 1];
            if end == 6 {
                seen.extend(path.windows(2).map(|pair| (pair[0], pair[1])));
            }
            let next = (end + 1..7).filter(|&v| edge(end, v));
            paths.extend(next.map(|v| [&path[..], &[v]].concat()));
        }
        let ops = digits.map(|d| Operation::ALL[d]);
        let spec = ModelSpec::new(bits, &ops);
        if seen.is_empty() {
            prop_assert_eq!(spec, Err(SpecError::Disconnected));
        } else if seen.len() > 9 {
            prop_assert_eq!(spec, Err(SpecError::Edges(seen.len())));
        } else {
            let spec = spec.unwrap();
            let kept: Vec<usize> =
                (0..7).filter(|v| seen.iter().any(|(x, y)| x == v || y == v)).collect();
            prop_assert_eq!(spec.vertices(), kept.len());
            for (x, &from) in kept.iter().enumerate() {
                for (y, &to) in kept.iter().enumerate() {
                    prop_assert_eq!(spec.has_edge(x, y), seen.contains(&(from, to)));
                }
            }
            let inner = &kept[1..kept.len() - 1];
            let expected: Vec<Operation> = inner.iter().map(|&v| ops[v - 1]).collect();
            prop_assert_eq!(spec.operations(), &expected[..]);
        }
    }
}

#[test]
fn what_is_no_cell_is_refused_with_the_reason() {
    let labels = ["input", "maxpool3x3", "output"];
    let refused = |matrix: &[Vec<u8>], labels: &[&str]| {
        ModelSpec::from_matrix(matrix, labels)
            .unwrap_err()
            .to_string()
    };
    let chain = vec![vec![0, 1, 0], vec![0, 0, 1], vec![0, 0, 0]];
    assert!(ModelSpec::from_matrix(&chain, &labels).is_ok());
    assert!(refused(&chain, &labels[..2]).contains("3 vertices need 1 inner operations, not 0"));
    assert!(refused(&chain, &["input", "skip", "output"]).contains("vertex 1 is labelled `skip`"));
    assert!(refused(&chain, &["maxpool3x3", "maxpool3x3", "output"]).contains("expected `input`"));
    assert!(refused(&chain, &["input", "maxpool3x3", "input"]).contains("expected `output`"));
    let mut ragged = chain.clone();
    ragged[1].push(0);
    assert!(refused(&ragged, &labels).contains("row 1 of the adjacency matrix has 4 entries"));
    let mut backward = chain.clone();
    backward[2][1] = 1;
    assert!(refused(&backward, &labels).contains("edge 2 -> 1 doesn't lead forward"));
    let mut two = chain.clone();
    two[0][1] = 2;
    assert!(refused(&two, &labels).contains("entry (0, 1) is 2"));
    let mut open = chain;
    open[0][1] = 0;
    assert!(refused(&open, &labels).contains("no path"));
    assert!(refused(&[vec![0]], &["input"]).contains("2 to 7 vertices"));
    assert!(refused(&vec![vec![0; 8]; 8], &["input"; 8]).contains("not 8"));
    let full = ModelSpec::new((1 << 10) - 1, &[Operation::Conv1x1; 3]);
    assert_eq!(full, Err(SpecError::Edges(10)));
}
