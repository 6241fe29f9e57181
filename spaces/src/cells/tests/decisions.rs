//! Choices, genotypes and discretisation.

use proptest::prelude::*;

use super::*;

fn random_weights(spec: &ArchSpec, seed: u64, levels: u32) -> Marginals {
    let rng = &mut Streams::new(seed).at("weights", 0);
    spec.groups()
        .iter()
        .map(|g| {
            g.rows
                .iter()
                .map(|r| {
                    // Few levels make ties, which the first wins.
                    r.candidates
                        .iter()
                        .map(|_| f64::from(rng.random_range(0..levels)) / f64::from(levels))
                        .collect()
                })
                .collect()
        })
        .collect()
}

/// DARTS's `parse`, written down as its paper says it, over candidates' names.
fn brute_force(cell: &CellType, weights: &[Vec<f64>]) -> Vec<Vec<usize>> {
    let mut kept = vec![vec![]; cell.edges.len()];
    match cell.keep {
        None => {
            for (e, w) in weights.iter().enumerate() {
                let top = w.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                kept[e] = vec![w.iter().position(|x| *x == top).unwrap()];
            }
        }
        Some(k) => {
            for to in 0..cell.states() {
                let mut edges: Vec<(f64, usize, usize)> = vec![];
                for (e, edge) in cell.edges.iter().enumerate().filter(|(_, e)| e.to == to) {
                    let mut best: Option<(f64, usize)> = None;
                    for (c, op) in edge.candidates.iter().enumerate() {
                        let w = weights[e][c];
                        if op.name() != "none" && best.is_none_or(|(b, _)| w > b) {
                            best = Some((w, c));
                        }
                    }
                    if let Some((w, c)) = best {
                        edges.push((w, e, c));
                    }
                }
                for _ in 0..k.min(edges.len()) {
                    let top = edges.iter().map(|e| e.0).fold(f64::NEG_INFINITY, f64::max);
                    let i = edges.iter().position(|e| e.0 == top).unwrap();
                    let (_, e, c) = edges.remove(i);
                    kept[e] = vec![c];
                }
            }
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: Option::None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn derivation_equals_brute_force(seed in any::<u64>(), levels in 2u32..40) {
        let space = any_space(seed);
        let weights = random_weights(space.spec(), seed, levels);
        let choice = space.derive(&weights);
        choice.check(space.spec()).unwrap();
        for (g, cell) in space.cells.iter().enumerate() {
            prop_assert_eq!(&choice.groups()[g], &brute_force(cell, &weights[g]));
        }
    }

    #[test]
    fn genotypes_lead_back_to_their_choices(seed in any::<u64>()) {
        let space = any_space(seed);
        let choice = space.random(&mut Streams::new(seed).at("choice", 0));
        let genotype = space.genotype(&choice);
        genotype.check().unwrap();
        // `none` and nothing are the same cell; written back it is `none` where every edge keeps something.
        let back = space.choice(&genotype).unwrap();
        prop_assert_eq!(space.genotype(&back), genotype);
        for (g, cell) in space.cells.iter().enumerate() {
            for e in 0..cell.edges.len() {
                let real = |c: &&usize| cell.edges[e].candidates[**c] != Op::None;
                let (a, b) = (choice.kept(g, e), back.kept(g, e));
                prop_assert_eq!(a.iter().filter(real).collect::<Vec<_>>(), b.iter().filter(real).collect::<Vec<_>>());
            }
        }
    }

    /// A random architecture is one that derivation can give: as many edges a node, no `none` among them.
    #[test]
    fn random_architectures_are_derivable(seed in any::<u64>()) {
        let space = any_space(seed);
        let choice = space.random(&mut Streams::new(seed).at("choice", 0));
        let one_hot = space.spec().to_marginals(&choice.one_hot(space.spec(), tch::Kind::Double, tch::Device::Cpu).weights);
        prop_assert_eq!(space.derive(&one_hot), choice);
    }

    /// Reordering the candidates of an edge permutes the result and nothing else.
    #[test]
    fn relabelling_candidates_permutes_the_result(seed in any::<u64>()) {
        let space = any_space(seed);
        let mut mirrored = space.cells.as_ref().clone();
        let mut weights = random_weights(space.spec(), seed, 1 << 30);
        let before = space.genotype(&space.derive(&weights));
        for (cell, rows) in mirrored.iter_mut().zip(&mut weights) {
            for (edge, row) in cell.edges.iter_mut().zip(rows) {
                edge.candidates.reverse();
                row.reverse();
            }
        }
        let other = CellSpace::new("any", mirrored, space.skeleton, 2, 3).unwrap();
        prop_assert_eq!(other.genotype(&other.derive(&weights)), before);
    }
}

#[test]
fn random_architectures_are_uniform() {
    // Two edges of one and of three candidates, one of them kept: four architectures.
    let mut cell = CellType::dense("cell", 1, 2, &[Op::Skip], Some(1), Output::Last);
    cell.edges.remove(0);
    cell.edges[1].candidates = vec![Op::None, Op::Conv1, Op::Conv3, Op::AvgPool3];
    let space = CellSpace::new("s", vec![cell], Skeleton::Residual, 2, 1).unwrap();
    let mut seen = std::collections::HashMap::new();
    for i in 0..8000 {
        let choice = space.random(&mut Streams::new(1).at("c", i));
        *seen.entry(choice).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 4);
    for n in seen.values() {
        // Five standard deviations of a binomial with p = 1/4.
        assert!((n - 2000_i32).abs() < 194, "{seen:?}");
    }
}

#[test]
fn spaces_have_their_published_shapes() {
    for name in NAMES {
        let (space, parts) = (registered(name), parts(name));
        assert_eq!(space.spec(), parts.spec(), "{name}");
        for i in 0..50 {
            let choice = space.random(&mut Streams::new(i).at(name, 0));
            let genotype = space.genotype(&choice);
            assert_eq!(space.choice(&genotype).unwrap(), choice, "{name}");
            for node in genotype.cells.iter().flat_map(|c| &c.nodes) {
                let edges = node.inputs.len();
                assert!(name == "nasbench201" || edges == 2, "{name}: {genotype}");
            }
        }
    }
    let shape = |name: &str| {
        let space = registered(name);
        let shapes: Vec<[i64; 2]> = space.spec().groups().iter().map(Group::shape).collect();
        shapes
    };
    assert_eq!(shape("darts"), [[14, 8], [14, 8]]);
    assert_eq!(shape("nasbench201"), [[6, 5]]);
    assert_eq!(shape("robust-s1"), [[14, 2], [14, 2]]);
    assert_eq!(shape("robust-s3"), [[14, 3], [14, 3]]);
    assert_eq!(registered("nasbench201").spec().size(), 15_625.0);
}

#[test]
fn cells_that_cannot_be_are_refused() {
    let dense = |output| CellType::dense("cell", 1, 2, &[Op::Skip], None, output);
    let refused = |change: &dyn Fn(&mut CellType)| {
        let mut cell = dense(Output::Last);
        change(&mut cell);
        let error = CellSpace::new("s", vec![cell], Skeleton::Residual, 2, 1).unwrap_err();
        error.to_string()
    };
    for (says, change) in [
        (
            "must lead forward",
            &(|c: &mut CellType| c.edges[0].from = 2) as &dyn Fn(&mut CellType),
        ),
        ("no candidates", &|c| c.edges[1].candidates.clear()),
        ("twice", &|c| c.edges[1].candidates.push(Op::Skip)),
        ("out of order", &|c| c.edges.swap(1, 2)),
        ("put out their last node", &|c| c.output = Output::Concat),
        ("at least one node", &|c| {
            c.nodes = 0;
            c.edges.clear();
        }),
    ] {
        let message = refused(change);
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn genotypes_of_other_spaces_are_refused() {
    let (darts, bench) = (registered("darts"), registered("nasbench201"));
    let of =
        |space: &dyn SearchSpace| space.genotype(&space.random(&mut Streams::new(0).at("x", 0)));
    assert!(darts.choice(&of(bench.as_ref())).is_err());
    assert!(bench.choice(&of(darts.as_ref())).is_err());
    let s2 = registered("robust-s2");
    let mut genotype = of(s2.as_ref());
    genotype.cells[0].nodes[0].inputs[0].op = Some("sep_conv_5x5".into());
    let message = s2.choice(&genotype).unwrap_err().to_string();
    assert!(message.contains("`sep_conv_5x5` on the edge"), "{message}");
}
