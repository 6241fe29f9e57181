#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;

use nasfw_framework::network::{Network, NetworkOptions};
use nasfw_framework::prelude::{Cell, Edge, Genotype, Mode, Node, Streams, Task, Weights};
use tch::{Device, Kind, Tensor};

use crate::test_data::unpacked;

use super::{ModelSpec, Operation, SPACE, SpecError, genotype_network, network};

const CIFAR10: Task = Task {
    channels: 3,
    height: 32,
    width: 32,
    classes: 10,
};

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
    let Some(models) = unpacked("nasbench101_space.bin.gz") else {
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
fn published_models_have_their_published_hashes_and_numbers_of_parameters() {
    let Some(table) = unpacked("nasbench101_subset.csv.gz") else {
        return;
    };
    let table = String::from_utf8(table).unwrap();
    let params_column = table
        .lines()
        .next()
        .unwrap()
        .split(',')
        .position(|c| c == "params")
        .unwrap();
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
        let params = network(&spec, CIFAR10, &NetworkOptions::default())
            .unwrap()
            .size()
            .params;
        assert_eq!(
            params,
            fields[params_column].parse::<i64>().unwrap(),
            "{row}"
        );
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
    let full = |n: usize| -> Vec<Vec<u8>> {
        (0..n)
            .map(|x| (0..n).map(|y| u8::from(y == x + 1)).collect())
            .collect()
    };
    assert!(refused(&full(8), &labelled(8)).contains("not 8"));
    assert!(refused(&full(101), &labelled(101)).contains("not 101"));
    let full = ModelSpec::new((1 << 10) - 1, &[Operation::Conv1x1; 3]);
    assert_eq!(full, Err(SpecError::Edges(10)));
}

/// Labels of a cell of so many vertices.
fn labelled(n: usize) -> Vec<&'static str> {
    let inner = std::iter::repeat_n("maxpool3x3", n - 2);
    std::iter::once("input")
        .chain(inner)
        .chain(["output"])
        .collect()
}

/// The benchmark's program prunes first: what lies on no path from input to output counts for no limit, and its label
/// and entries may be anything.
#[test]
fn what_pruning_removes_does_not_count() {
    // input → 1 → output beside any number of vertices that lead nowhere.
    for n in [8, 9, 40, 100] {
        let mut matrix = vec![vec![0; n]; n];
        matrix[0][1] = 1;
        matrix[1][n - 1] = 1;
        matrix[0][2..n - 1].fill(1);
        matrix[1][2..n - 1].fill(3);
        let mut labels = labelled(n);
        labels[2..n - 1].fill("null");
        let spec = ModelSpec::from_matrix(&matrix, &labels).unwrap();
        assert_eq!((spec.vertices(), spec.edges()), (3, 2));
        let small =
            ModelSpec::from_matrix(&[vec![0, 1, 0], vec![0, 0, 1], vec![0, 0, 0]], &labelled(3));
        assert_eq!(spec.hash(), small.unwrap().hash());

        let dead: &[usize] = &[0];
        let nodes: Vec<(&str, &[usize])> = (1..n - 1)
            .map(|v| {
                if v == 1 {
                    ("maxpool3x3", dead)
                } else {
                    ("null", dead)
                }
            })
            .collect();
        let of_cell = ModelSpec::try_from(&cell(&nodes, &[1])).unwrap();
        assert_eq!(of_cell, spec);
    }
    // A vertex that is left still counts.
    let mut matrix = vec![vec![0; 8]; 8];
    (0..7).for_each(|v| matrix[v][v + 1] = 1);
    let refused = ModelSpec::from_matrix(&matrix, &labelled(8));
    assert_eq!(refused, Err(SpecError::Vertices(8)));
    let bits = (0..7).map(|v| 1 << position(v, v + 1)).sum();
    let eight = ModelSpec::new(bits, &[Operation::MaxPool3x3; 6]);
    assert_eq!(eight, Err(SpecError::Vertices(8)));
    let shortcut = 1 << position(0, 7);
    let two = ModelSpec::new(shortcut | 1 << position(0, 3), &[Operation::Conv1x1; 6]).unwrap();
    assert_eq!(two.vertices(), 2);
}

/// A cell from (operation, states read) per node.
fn cell(nodes: &[(&str, &[usize])], output: &[usize]) -> Cell {
    let edge = |&from: &usize| Edge { from, op: None };
    let node = |(op, inputs): &(&str, &[usize])| Node {
        op: Some((*op).into()),
        inputs: inputs.iter().map(edge).collect(),
    };
    Cell {
        name: "cell".into(),
        inputs: vec!["input".into()],
        nodes: nodes.iter().map(node).collect(),
        output: output.to_vec(),
    }
}

fn options(channels: i64, cells: usize) -> NetworkOptions {
    NetworkOptions {
        channels: Some(channels),
        cells: Some(cells),
        auxiliary: false,
    }
}

fn build(cell: Cell, task: Task, options: &NetworkOptions) -> nasfw_framework::Result<Network> {
    let genotype = Genotype {
        space: SPACE.into(),
        cells: vec![cell],
    };
    genotype_network(&genotype, task, options)
}

/// One module and its classifier by hand: 5 channels are split 3 + 2 between nodes 2 and 3, node 1 has the 3 that node 2
/// takes, and node 3 takes the first 2 of them; the input is projected for nodes 1 and 3 and for the output.
#[test]
fn a_network_is_what_the_benchmark_describes() {
    let (conv, pool) = ("conv3x3-bn-relu", "maxpool3x3");
    let cell = cell(&[(conv, &[0]), (conv, &[1]), (pool, &[0, 1])], &[0, 2, 3]);
    let task = Task {
        channels: 2,
        height: 5,
        width: 4,
        classes: 3,
    };
    let network = build(cell, task, &options(5, 1)).unwrap();
    tch::manual_seed(1);
    let double = (Kind::Double, Device::Cpu);
    let params = Tensor::randn([network.layout().numel()], double);
    let stats = Tensor::rand([network.stats_layout().numel()], double) + 0.5;
    let mut named = HashMap::new();
    for (layout, flat) in [
        (network.layout(), &params),
        (network.stats_layout(), &stats),
    ] {
        let mut at = 0;
        for (name, shape) in layout.entries() {
            let numel = shape.iter().product();
            named.insert(name, flat.narrow(0, at, numel).view(shape));
            at += numel;
        }
    }
    let layer = |name: &str, x: &Tensor| {
        let part = |part: &str| &named[format!("{name}.{part}").as_str()];
        let pad = part("conv.weight").size()[2] / 2;
        let x = x.conv2d(
            part("conv.weight"),
            None::<&Tensor>,
            [1, 1],
            [pad, pad],
            [1, 1],
            1,
        );
        let column = |p: &str| part(p).view([1, -1, 1, 1]);
        let normal = (x - column("bn.running_mean")) / (column("bn.running_var") + 1e-5).sqrt();
        (normal * column("bn.weight") + column("bn.bias")).relu()
    };
    let images = Tensor::randn([2, 2, 5, 4], double);
    let input = layer("stem", &images);
    let m = |name: &str| format!("modules.0.{name}");
    let one = layer(&m("vertices.1"), &layer(&m("projections.1"), &input));
    let two = layer(&m("vertices.2"), &one);
    let sum = one.narrow(1, 0, 2) + layer(&m("projections.3"), &input);
    let three = sum.max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false);
    let output = Tensor::cat(&[two, three], 1) + layer(&m("projections.4"), &input);
    let mean = output.mean_dim([2i64, 3].as_slice(), false, Kind::Double);
    let expected = mean.matmul(&named["classifier.weight"].tr()) + &named["classifier.bias"];
    let weights = Weights {
        params: &params,
        stats: &stats,
    };
    let ours = network
        .forward(weights, &images, Mode::Eval, 0.0, Streams::new(0))
        .unwrap()
        .main;
    assert!((ours - expected).abs().max().double_value(&[]) < 1e-10);
}

#[test]
fn sizes_follow_the_options_and_what_does_not_fit_is_refused() {
    let chain = || cell(&[("conv1x1-bn-relu", &[0])], &[1]);
    // Per module of c to d channels: projection c·d, vertex d·d, two batch norms of 2·d.
    let modules = |sizes: &[(i64, i64)]| {
        sizes
            .iter()
            .map(|(c, d)| c * d + d * d + 4 * d)
            .sum::<i64>()
    };
    let count = |cells| {
        build(chain(), CIFAR10, &options(4, cells))
            .unwrap()
            .size()
            .params
    };
    let ends = |last: i64| 27 * 4 + 8 + last * 10 + 10;
    assert_eq!(count(1), ends(4) + modules(&[(4, 4)]));
    assert_eq!(count(3), ends(16) + modules(&[(4, 4), (4, 8), (8, 16)]));
    let small = Task {
        height: 3,
        ..CIFAR10
    };
    let error = |cell, task, options| build(cell, task, &options).unwrap_err().to_string();
    assert!(error(chain(), small, options(4, 3)).contains("too small"));
    let wide = || cell(&[("conv1x1-bn-relu", &[0]), ("maxpool3x3", &[0])], &[1, 2]);
    assert!(build(wide(), CIFAR10, &options(2, 1)).is_ok());
    assert!(error(wide(), CIFAR10, options(1, 1)).contains("at least 2 channels"));
    assert!(error(wide(), CIFAR10, options(4, 0)).contains("one cell"));
    let auxiliary = NetworkOptions {
        auxiliary: true,
        ..options(4, 3)
    };
    assert!(error(chain(), CIFAR10, auxiliary).contains("auxiliary"));
}

#[test]
fn genotypes_that_are_no_cells_are_refused() {
    let conv = "conv3x3-bn-relu";
    let error = |cell: Cell| {
        build(cell, CIFAR10, &options(8, 3))
            .unwrap_err()
            .to_string()
    };
    assert!(error(cell(&[(conv, &[1])], &[1])).contains("leads backward or occurs twice"));
    assert!(error(cell(&[(conv, &[0, 0])], &[1])).contains("occurs twice"));
    assert!(error(cell(&[(conv, &[0])], &[2])).contains("leads backward"));
    assert!(error(cell(&[("skip_connect", &[0])], &[1])).contains("labelled `skip_connect`"));
    assert!(error(cell(&[(conv, &[0])], &[])).contains("no path"));
    let states = [0, 1, 2, 3, 4, 5];
    let long: Vec<(&str, &[usize])> = states.chunks(1).map(|from| (conv, from)).collect();
    assert!(error(cell(&long, &[6])).contains("not 8"));
    let mut with_op = cell(&[(conv, &[0])], &[1]);
    with_op.nodes[0].inputs[0].op = Some("skip_connect".into());
    assert!(error(with_op).contains("on an edge"));
    let mut inputs = cell(&[(conv, &[0])], &[1]);
    inputs.inputs.push("more".into());
    assert!(error(inputs).contains("2 inputs"));
    let other = Genotype {
        space: "darts".into(),
        cells: vec![cell(&[(conv, &[0])], &[1])],
    };
    let error = genotype_network(&other, CIFAR10, &options(8, 3))
        .unwrap_err()
        .to_string();
    assert!(error.contains("space `darts`"), "{error}");
}
