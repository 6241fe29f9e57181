//! The same architecture, written differently.

use proptest::prelude::*;

use super::super::features::features;
use super::*;
use crate::formats::nasbench101_genotype;
use crate::nasbench101::ModelSpec;

/// The same graph with its inner vertices in another order that its edges allow, and one that leads nowhere.
fn renumbered(spec: &ModelSpec, seed: u64) -> Genotype {
    let rng = &mut Streams::new(seed).at("order", 0);
    let n = spec.vertices();
    let mut order = vec![];
    while order.len() < n {
        let free: Vec<usize> = (0..n)
            .filter(|v| {
                !order.contains(v) && (0..*v).all(|u| !spec.has_edge(u, *v) || order.contains(&u))
            })
            .collect();
        order.push(free[rng.random_range(0..free.len())]);
    }
    let place = |v: usize| order.iter().position(|o| *o == v).unwrap();
    let mut matrix = vec![vec![0; n]; n];
    let mut labels = vec![""; n];
    for v in 0..n {
        labels[place(v)] = spec.labels()[v];
        for w in (v + 1..n).filter(|&w| spec.has_edge(v, w)) {
            matrix[place(v)][place(w)] = 1;
        }
    }
    let mut genotype = nasbench101_genotype(&ModelSpec::from_matrix(&matrix, &labels).unwrap());
    // The new node is read by nobody.
    let states = n - 1;
    genotype.cells[0].nodes.push(Node {
        op: Some("conv1x1-bn-relu".into()),
        inputs: vec![Edge {
            from: rng.random_range(0..states),
            op: None,
        }],
    });
    genotype
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Not nearly the same: the same.
    #[test]
    fn isomorphic_cells_get_the_same_value(seed in any::<u64>()) {
        let surrogate = &example().surrogate;
        let space = space("nasbench1shot1-s3");
        let genotype = space.genotype(&space.random(&mut Streams::new(seed).at("cell", 0)));
        let Some(answer) = surrogate.answer(&genotype).unwrap() else { return Ok(()) };
        let mut other = renumbered(&nasbench101_spec(&genotype).unwrap(), seed);
        prop_assert_eq!(features(&genotype), features(&other));
        other.space.clone_from(&genotype.space);
        prop_assert_eq!(surrogate.answer(&other).unwrap().unwrap(), answer);
    }
}

#[test]
fn the_order_of_edges_means_nothing_and_operations_do() {
    let cell = |normal: &str| {
        let reduce = "[('skip_connect', 0), ('skip_connect', 1)]";
        crate::formats::read(&format!(
            "Genotype(normal={normal}, normal_concat=[2], reduce={reduce}, reduce_concat=[2])"
        ))
        .unwrap()
    };
    let one = cell("[('sep_conv_3x3', 0), ('max_pool_3x3', 1)]");
    let turned = cell("[('max_pool_3x3', 1), ('sep_conv_3x3', 0)]");
    let other = cell("[('sep_conv_3x3', 1), ('max_pool_3x3', 0)]");
    assert_eq!(key(&one).unwrap(), key(&turned).unwrap());
    assert_eq!(features(&one), features(&turned));
    assert_ne!(key(&one).unwrap(), key(&other).unwrap());
    assert_ne!(features(&one), features(&other));
}

#[test]
fn what_carries_nothing_is_not_seen() {
    let read = |text: &str| features(&crate::formats::read(text).unwrap());
    let plain = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|";
    let dead_end = "|nor_conv_1x1~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|none~2|";
    assert_eq!(read(plain), read(dead_end));
    let nothing = read("|nor_conv_1x1~0|+|none~0|none~1|+|none~0|none~1|none~2|");
    assert_eq!(nothing.len(), 1);
}

#[test]
fn no_architecture_takes_for_ever() {
    // Every node reads all before it, some twice: far more paths than can be walked.
    let node = |k: usize, op: Option<&str>| Node {
        op: op.map(str::to_owned),
        inputs: (0..=k).map(|from| Edge { from, op: None }).collect(),
    };
    for op in [None, Some("conv")] {
        let genotype = Genotype {
            space: "own".into(),
            cells: vec![Cell {
                name: "cell".into(),
                inputs: vec!["input".into()],
                nodes: (0..80).map(|k| node(k, op)).collect(),
                output: vec![80],
            }],
        };
        genotype.check().unwrap();
        assert!(features(&genotype).values().all(|a| a.is_finite()));
    }
}
