//! Costs: expectations against networks and enumeration, limits against all architectures, the penalty against its base.

use std::collections::BTreeMap;
use std::sync::Arc;

use nasfw_framework::cost::{Asked, CostModel, Limited, Wanted};
use nasfw_framework::space::Task;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::distribution::assert_close;
use super::spied::{begun, watched};
use super::*;

const TASK: Task = Task {
    channels: 3,
    height: 16,
    width: 16,
    classes: 10,
};
const COSTS: [&str; 4] = ["macs", "params", "memory", PIECES];
/// What looks pieces up, as `latency` does, in a table that knows them all.
const PIECES: &str = "test-pieces";

/// Every piece costs what its key says, a number that is exact in a sum.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pieces {}

#[typetag::serde(name = "test-pieces")]
impl Cost for Pieces {
    fn unit(&self) -> Unit {
        Unit::Count
    }

    fn of(&self, network: &Network) -> Result<f64> {
        let of = |key: &str| {
            key.bytes()
                .fold(7_u32, |n, b| (n * 31 + u32::from(b)) % 1009)
        };
        let pieces = network.pieces();
        Ok(pieces.iter().map(|piece| f64::from(of(piece.key()))).sum())
    }
}

/// Cells of 27 architectures.
const TOY: &str = r#"space.definition='''
[network]
skeleton = "nasbench201"
channels = 4
cells = 1
[[cell]]
name = "cell"
inputs = 1
nodes = 2
keep = 0
output = "last"
candidates = ["skip_connect", "nor_conv_1x1", "nor_conv_3x3"]
'''"#;

/// Cells of two nodes of which each keeps two of its edges, and one of its operations may be `none`.
const CONTEST: &str = r#"space.definition='''
[network]
skeleton = "darts"
channels = 4
cells = 2
[[cell]]
name = "normal"
inputs = 2
nodes = 2
keep = 2
output = "concat"
candidates = ["none", "skip_connect", "nor_conv_3x3"]
only = { "1->2" = ["skip_connect", "sep_conv_3x3"] }
'''"#;

fn space(set: &[&str]) -> Box<dyn SearchSpace> {
    // No image is looked at.
    let set = [&["dataset.name=toy-halves"], set].concat();
    config_of(&set).space.build().unwrap()
}

fn toy() -> Box<dyn SearchSpace> {
    space(&["space.name=custom", TOY])
}

fn contest() -> Box<dyn SearchSpace> {
    space(&["space.name=custom", CONTEST])
}

fn cost(name: &str) -> Arc<dyn Cost> {
    if name == PIECES {
        return Arc::new(Pieces {});
    }
    let plugin = Registry::load().unwrap().get(Plugins::Cost, name).unwrap();
    let section = plugin.default_section().unwrap();
    Arc::from(plugin.cost(&section).unwrap())
}

fn small() -> NetworkOptions {
    NetworkOptions {
        channels: Some(4),
        cells: Some(3),
        auxiliary: false,
    }
}

fn model(name: &str, space: &dyn SearchSpace, size: NetworkOptions) -> CostModel {
    CostModel::new(cost(name), space, TASK, size).unwrap()
}

/// What the space's own standalone network of a choice costs.
fn counted(name: &str, space: &dyn SearchSpace, choice: &Choice, size: &NetworkOptions) -> f64 {
    let network = space.network(&space.genotype(choice), TASK, size).unwrap();
    cost(name).of(&network).unwrap()
}

fn expected(model: &CostModel, space: &dyn SearchSpace, weights: &[Tensor]) -> Tensor {
    let mut rng = Streams::new(1).at("draws", 0);
    model.expected(space, weights, 4, &mut rng).unwrap()
}

/// Positive weights whose rows sum to one, leaves.
fn soft(spec: &ArchSpec, seed: u64) -> Vec<Tensor> {
    let mut rng = Streams::new(seed).at("weights", 0);
    let groups = spec.groups().iter();
    let weights = groups.map(|group| {
        let logits =
            nasfw_framework::rng::normal(&mut rng, &group.shape(), Kind::Double, Device::Cpu);
        group.softmax(&logits).set_requires_grad(true)
    });
    weights.collect()
}

/// Every architecture that can be derived, with its probability as [`CostModel`] has it: rows by their weights; where a node keeps
/// some of its edges, sets of edges by the product of their largest weights other than `none`'s, then operations by these.
fn enumerated(space: &dyn SearchSpace, weights: &Marginals) -> Vec<(Choice, f64)> {
    let spec = space.spec();
    let mut all = vec![(vec![], 1.0)];
    for (g, group) in spec.groups().iter().enumerate() {
        let rows = weights[g].clone();
        let contest = group.edges.as_ref().and_then(|edges| edges.keep);
        let Some(keep) = contest else {
            let mut ways: Vec<(Vec<Vec<usize>>, f64)> = vec![(vec![], 1.0)];
            for row in &rows {
                let sum: f64 = row.iter().sum();
                ways = (ways.iter())
                    .flat_map(|(kept, p)| {
                        let one =
                            |c: usize| ([kept.clone(), vec![vec![c]]].concat(), p * row[c] / sum);
                        (0..row.len()).map(one).collect::<Vec<_>>()
                    })
                    .collect();
            }
            all = product(&all, &ways);
            continue;
        };
        let ends = &group.edges.as_ref().unwrap().ends;
        let mut ways = vec![(vec![vec![]; rows.len()], 1.0)];
        let nodes: std::collections::BTreeSet<usize> = ends.iter().map(|e| e.1).collect();
        for node in nodes {
            let into: Vec<usize> = (0..rows.len()).filter(|e| ends[*e].1 == node).collect();
            let real = |e: usize| -> Vec<usize> {
                let none = group.rows[e].column("none");
                (0..rows[e].len()).filter(|c| Some(*c) != none).collect()
            };
            let strength = |e: usize| real(e).iter().map(|&c| rows[e][c]).fold(0.0, f64::max);
            let sets = nasfw_framework::arch::subsets(into.len(), keep.min(into.len()));
            let worth = |set: &Vec<usize>| set.iter().map(|&i| strength(into[i])).product::<f64>();
            let total: f64 = sets.iter().map(worth).sum();
            let mut of_node = vec![];
            for set in &sets {
                let mut here = vec![(vec![], worth(set) / total)];
                for &i in set {
                    let e = into[i];
                    let sum: f64 = real(e).iter().map(|&c| rows[e][c]).sum();
                    here = (here.iter())
                        .flat_map(|(kept, p): &(Vec<(usize, usize)>, f64)| {
                            let one = |&c: &usize| {
                                ([kept.clone(), vec![(e, c)]].concat(), p * rows[e][c] / sum)
                            };
                            real(e).iter().map(one).collect::<Vec<_>>()
                        })
                        .collect();
                }
                of_node.extend(here);
            }
            ways = (ways.iter())
                .flat_map(|(kept, p): &(Vec<Vec<usize>>, f64)| {
                    let with = |(more, q): &(Vec<(usize, usize)>, f64)| {
                        let mut kept = kept.clone();
                        more.iter().for_each(|&(e, c)| kept[e] = vec![c]);
                        (kept, p * q)
                    };
                    of_node.iter().map(with).collect::<Vec<_>>()
                })
                .collect();
        }
        all = product(&all, &ways);
    }
    all.into_iter()
        .map(|(kept, p)| (Choice::new(kept), p))
        .collect()
}

type Ways = Vec<(Vec<Vec<Vec<usize>>>, f64)>;

fn product(all: &Ways, ways: &[(Vec<Vec<usize>>, f64)]) -> Ways {
    let with = |(groups, p): &(Vec<Vec<Vec<usize>>>, f64)| {
        let one = |(kept, q): &(Vec<Vec<usize>>, f64)| {
            ([groups.clone(), vec![kept.clone()]].concat(), p * q)
        };
        ways.iter().map(one).collect::<Vec<_>>()
    };
    all.iter().flat_map(with).collect()
}

/// On every space that has networks, and for every cost: the weights of one architecture are expected to cost what its network
/// does, to the unit.
#[test]
fn one_hot_architectures_cost_what_their_networks_do() {
    let mut sums = BTreeMap::new();
    for plugin in Registry::load().unwrap().of(Plugins::Space) {
        let space = space(&[&format!("space.name={}", plugin.name)]);
        let random = |i| space.random(&mut Streams::new(2).at("choice", i));
        let of = space.network(&space.genotype(&random(0)), TASK, &small());
        if of.is_err() {
            continue;
        }
        for name in COSTS {
            let model = model(name, space.as_ref(), small());
            for i in 0..6 {
                let choice = random(i);
                let weights = choice
                    .one_hot(space.spec(), Kind::Double, Device::Cpu)
                    .weights;
                let expected = expected(&model, space.as_ref(), &weights).double_value(&[]);
                let counted = counted(name, space.as_ref(), &choice, &small());
                assert_eq!(expected, counted, "{name} on {}", plugin.name);
                assert_eq!(model.of(space.as_ref(), &choice).unwrap(), counted);
            }
            sums.insert((plugin.name, name), model.is_sum());
        }
    }
    // Cells add up, but for what is in memory at once; those of NAS-Bench-101 share channels between what they join.
    for (space, adds) in [
        ("darts", true),
        ("nasbench201", true),
        ("nasbench1shot1-s3", false),
    ] {
        assert_eq!(sums[&(space, "macs")], adds, "{space}");
        assert_eq!(sums[&(space, "params")], adds, "{space}");
        assert!(!sums[&(space, "memory")], "{space}");
    }
    // A chain's layers take as long as they take; in a cell, what nobody reads is not computed.
    assert!(sums[&("mobile", PIECES)]);
    assert!(!sums[&("nasbench201", PIECES)]);
    assert!(sums.len() > 20, "{sums:?}");
}

/// Value and gradient of an expectation against the sum over all architectures: of rows (two of NAS-Bench-201's are open, the
/// others decided), and of nodes that keep some of their edges.
#[test]
fn expectations_are_those_of_all_architectures() {
    let cells = space(&["space.name=nasbench201"]);
    for (space, decided) in [(toy(), 0), (cells, 4), (contest(), 0)] {
        let space = space.as_ref();
        let model = model("macs", space, small());
        assert!(model.is_sum());
        let mut weights = soft(space.spec(), 5);
        if decided > 0 {
            // Rows of one candidate and a trace of the others would do, too; exact zeros keep the sum short.
            let rows: Vec<Tensor> = (0..6)
                .map(|r| match r < decided {
                    true => Tensor::from_slice(&[0.0, 0.0, 0.0, 1.0, 0.0]),
                    false => weights[0].get(r).detach(),
                })
                .collect();
            weights = vec![Tensor::stack(&rows, 0).set_requires_grad(true)];
        }
        let value = expected(&model, space, &weights);
        value.backward();
        let gradients: Vec<Tensor> = weights.iter().map(Tensor::grad).collect();
        let costs: BTreeMap<Choice, f64> = enumerated(space, &space.spec().to_marginals(&weights))
            .into_iter()
            .filter(|(_, p)| *p > 0.0)
            .map(|(choice, _)| {
                let cost = counted("macs", space, &choice, &small());
                (choice, cost)
            })
            .collect();
        let sum = |weights: &Marginals| -> f64 {
            let all = enumerated(space, weights).into_iter();
            all.map(|(choice, p)| match p > 0.0 {
                true => p * costs[&choice],
                false => 0.0,
            })
            .sum()
        };
        let at = space.spec().to_marginals(&weights);
        assert!((value.double_value(&[]) / sum(&at) - 1.0).abs() < 1e-12);
        for (g, r, row) in space.spec().rows() {
            for c in 0..row.candidates.len() {
                if at[g][r][c] == 0.0 || at[g][r][c] == 1.0 {
                    continue;
                }
                let step = 1e-6;
                let moved = |by: f64| {
                    let mut moved = at.clone();
                    moved[g][r][c] += by;
                    sum(&moved)
                };
                let difference = (moved(step) - moved(-step)) / (2.0 * step);
                let gradient = gradients[g].double_value(&[r as i64, c as i64]);
                let scale = sum(&at);
                assert!(
                    (gradient - difference).abs() < 1e-6 * scale,
                    "{} {c}: {gradient} {difference}",
                    row.name
                );
            }
        }
    }
}

/// Of a cost that is no sum, value and gradient are right on average: within four standard errors of enumeration.
#[test]
fn estimates_are_unbiased() {
    for space in [toy(), contest()] {
        let space = space.as_ref();
        let model = model("memory", space, small());
        assert!(!model.is_sum());
        let weights = soft(space.spec(), 9);
        let at = space.spec().to_marginals(&weights);
        let of_all = |weights: &Marginals| -> f64 {
            let all = enumerated(space, weights).into_iter();
            all.map(|(choice, p)| p * model.of(space, &choice).unwrap())
                .sum()
        };
        let numbers_of =
            |weights: &[Tensor]| -> Vec<f64> { weights.iter().flat_map(numbers).collect() };
        let mut want = vec![of_all(&at)];
        for (g, r, row) in space.spec().rows() {
            let width = space.spec().groups()[g].width();
            for c in 0..width {
                let moved = |by: f64| {
                    let mut moved = at.clone();
                    moved[g][r][c] += by;
                    of_all(&moved)
                };
                want.push(match c < row.candidates.len() {
                    true => (moved(1e-6) - moved(-1e-6)) / 2e-6,
                    false => 0.0,
                });
            }
        }
        const TIMES: u64 = 1500;
        let (mut sums, mut squares) = (vec![0.0; want.len()], vec![0.0; want.len()]);
        for i in 0..TIMES {
            let mut rng = Streams::new(3).at("estimate", i);
            let value = model.expected(space, &weights, 4, &mut rng).unwrap();
            let leaves: Vec<&Tensor> = weights.iter().collect();
            let gradient = Tensor::run_backward(&[&value], &leaves, false, false);
            let seen = [vec![value.double_value(&[])], numbers_of(&gradient)].concat();
            for (i, x) in seen.iter().enumerate() {
                sums[i] += x / TIMES as f64;
                squares[i] += x * x / TIMES as f64;
            }
        }
        for (i, want) in want.iter().enumerate() {
            let error = ((squares[i] - sums[i] * sums[i]) / TIMES as f64)
                .max(0.0)
                .sqrt();
            let off = (sums[i] - want).abs();
            assert!(
                off <= 4.0 * error + 1e-3 * want.abs().max(1.0),
                "{i}: {} {want}",
                sums[i]
            );
        }
        assert!(squares[1..].iter().any(|square| *square > 0.0));
    }
}

fn asked(limits: &[(&str, f64)], size: NetworkOptions) -> Asked {
    let wanted = limits.iter().map(|(name, most)| Wanted {
        name: (*name).into(),
        cost: cost(name),
        most: *most,
    });
    Asked {
        wanted: wanted.collect(),
        size,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 12, ..ProptestConfig::default() })]

    /// What is derived under a limit is the architecture of largest product of weights among all that meet it; what is drawn
    /// meets it.
    #[test]
    fn the_likeliest_under_a_limit_is_the_best_of_all(seed in any::<u64>(), share in 0.05f64..0.9, which in 0usize..3) {
        let make = || [toy(), space(&["space.name=nasbench201"]), contest()].remove_item(which);
        let base = make();
        let weights = base.spec().to_marginals(&soft(base.spec(), seed));
        let model = model("params", base.as_ref(), small());
        let mut all: Vec<(Choice, f64, f64)> = enumerated(base.as_ref(), &weights)
            .into_iter()
            .map(|(choice, _)| {
                let cost = model.of(base.as_ref(), &choice).unwrap();
                let score = score(&choice, &weights);
                (choice, cost, score)
            })
            .collect();
        all.sort_by(|a, b| a.1.total_cmp(&b.1));
        let limit = all[(share * all.len() as f64) as usize].1;
        let limited = Limited::new(make(), &asked(&[("params", limit)], small()), TASK).unwrap();
        let best = all.iter().filter(|a| a.1 <= limit).map(|a| a.2).fold(f64::NEG_INFINITY, f64::max);
        let derived = limited.derive(&weights);
        prop_assert!(model.of(base.as_ref(), &derived).unwrap() <= limit);
        prop_assert!((score(&derived, &weights) - best).abs() < 1e-9, "{} {best}", score(&derived, &weights));
        for i in 0..5 {
            let drawn = limited.random(&mut Streams::new(seed).at("drawn", i));
            prop_assert!(model.of(base.as_ref(), &drawn).unwrap() <= limit);
        }
        // Without a need nothing changes.
        let loose = Limited::new(make(), &asked(&[("params", 1e12)], small()), TASK).unwrap();
        prop_assert_eq!(loose.derive(&weights), base.derive(&weights));
    }

    /// Two limits at once, one of them on a cost that is no sum.
    #[test]
    fn several_limits_are_all_met(seed in any::<u64>(), share in 0.3f64..0.9) {
        let base = toy();
        let weights = base.spec().to_marginals(&soft(base.spec(), seed));
        for second in ["params", "memory"] {
            let limit = |name: &str| {
                let all = enumerated(base.as_ref(), &weights).into_iter();
                let mut costs: Vec<f64> = all.map(|(c, _)| counted(name, base.as_ref(), &c, &small())).collect();
                costs.sort_by(f64::total_cmp);
                costs[(share * costs.len() as f64) as usize]
            };
            let limits = [("macs", limit("macs")), (second, limit(second))];
            let limited = Limited::new(toy(), &asked(&limits, small()), TASK).unwrap();
            let derived = limited.derive(&weights);
            let fits = |choice: &Choice| limits.iter().all(|(n, most)| counted(n, base.as_ref(), choice, &small()) <= *most);
            prop_assert!(fits(&derived));
            let all = enumerated(base.as_ref(), &weights).into_iter();
            let best = all.filter(|(c, _)| fits(c)).map(|(c, _)| score(&c, &weights)).fold(f64::NEG_INFINITY, f64::max);
            prop_assert!((score(&derived, &weights) - best).abs() < 1e-9);
        }
    }
}

trait RemoveItem<T> {
    fn remove_item(self, at: usize) -> T;
}

impl<T, const N: usize> RemoveItem<T> for [T; N] {
    fn remove_item(self, at: usize) -> T {
        self.into_iter().nth(at).unwrap()
    }
}

/// Logarithm of the product of the weights of what is kept.
fn score(choice: &Choice, weights: &Marginals) -> f64 {
    let groups = choice.groups().iter().zip(weights);
    let rows = groups.flat_map(|(rows, weights)| rows.iter().zip(weights));
    rows.flat_map(|(kept, weights)| kept.iter().map(|&c| weights[c].ln()))
        .sum()
}

#[test]
fn limits_that_nothing_meets_are_refused_with_the_cheapest() {
    let limited = Limited::new(toy(), &asked(&[("params", 1.0)], small()), TASK);
    let error = limited.err().unwrap().to_string();
    assert!(error.contains("the cheapest has params"), "{error}");
    let limited = Limited::new(
        space(&["space.name=toy-planted"]),
        &asked(&[("params", 1e9)], small()),
        TASK,
    );
    assert!(
        limited
            .err()
            .unwrap()
            .to_string()
            .contains("standalone network")
    );
}

const CONSTRAINED: [&str; 7] = [
    "strategy.name=constrained",
    "strategy.base.name=darts",
    "space.name=custom",
    TOY,
    "dataset.name=blots",
    "trainer.epochs=4",
    "strategy.network.channels=4",
];

fn weights_of(set: &[&str]) -> Marginals {
    watched(set).outcome.marginals.unwrap()
}

/// Below its limit the penalty `above` is nothing, and so is any penalty of no strength: the search is the base's, bit by bit. A
/// penalty that counts makes the expected cost smaller.
#[test]
fn a_penalty_that_is_nothing_is_the_base_and_one_that_counts_is_cheaper() {
    let base = weights_of(&[
        "strategy.name=darts",
        "space.name=custom",
        TOY,
        "dataset.name=blots",
        "trainer.epochs=4",
    ]);
    let with = |more: &[&str]| weights_of(&[&CONSTRAINED[..], more].concat());
    assert_eq!(with(&["strategy.cost.macs=1G"]), base);
    assert_eq!(
        with(&[
            "strategy.cost.macs=1G",
            "strategy.penalty=log",
            "strategy.strength=0"
        ]),
        base
    );
    let without = [
        "strategy.name=constrained",
        "strategy.base.name=darts",
        "space.name=custom",
        TOY,
    ];
    let without = [&without[..], &["dataset.name=blots", "trainer.epochs=4"]].concat();
    assert_eq!(weights_of(&without), base, "without limits");
    let (search, _) = begun(
        &[
            "strategy.name=darts",
            "space.name=custom",
            TOY,
            "dataset.name=blots",
        ],
        0.0,
    );
    let (space, model) = (search.space(), own_macs(&search));
    let expected = |weights: &Marginals| {
        let rows: Vec<f64> = weights[0].concat();
        let shape = space.spec().groups()[0].shape();
        let weights = [Tensor::from_slice(&rows).view(shape)];
        expected(&model, space, &weights).double_value(&[])
    };
    let all = enumerated(space, &base).into_iter();
    let least = all
        .map(|(c, _)| model.of(space, &c).unwrap())
        .fold(f64::INFINITY, f64::min);
    let limit = format!("strategy.cost.macs={}", least * 1.2);
    for (penalty, rate) in [
        ("above", 0.01),
        ("linear", 0.01),
        ("log", 0.01),
        ("lagrange", 1.0),
    ] {
        let penalty = format!("strategy.penalty={penalty}");
        let rate = format!("strategy.rate={rate}");
        let found = with(&[&limit, &penalty, "strategy.strength=10", &rate]);
        assert!(
            expected(&found) < expected(&base),
            "{penalty}: {} {}",
            expected(&found),
            expected(&base)
        );
    }
}

/// The gradient that the penalty adds, by differences of the expected cost at φ: one step of plain descent moves φ by it.
#[test]
fn the_penalty_adds_its_gradient() {
    let begun = |more: &[&str]| {
        let base = if more.is_empty() {
            "strategy"
        } else {
            "strategy.base"
        };
        let sgd = ["optimizer=sgd", "lr=0.1", "momentum=0", "weight_decay=0"];
        let sgd = sgd.map(|set| format!("{base}.arch.{set}"));
        let own = match more.is_empty() {
            true => vec![
                "strategy.name=darts",
                "space.name=custom",
                TOY,
                "dataset.name=blots",
            ],
            false => CONSTRAINED.to_vec(),
        };
        let sgd = sgd.iter().map(String::as_str);
        begun(
            &own.into_iter()
                .chain(sgd)
                .chain(more.iter().copied())
                .collect::<Vec<_>>(),
            0.3,
        )
    };
    let phi = |more: &[&str]| -> Vec<f64> {
        let (mut search, mut strategy) = begun(more);
        nasfw_framework::trainer::advance(&mut search, strategy.as_mut()).unwrap();
        numbers(&search.phi())
    };
    let (search, _) = begun(&[]);
    let (space, model) = (search.space(), own_macs(&search));
    let start = numbers(&search.phi());
    let group = &space.spec().groups()[0];
    let cost = |phi: &[f64]| {
        let weights = [group.softmax(&Tensor::from_slice(phi).view(group.shape()))];
        expected(&model, space, &weights).double_value(&[])
    };
    let limit = cost(&start) / 2.0;
    let plain = phi(&[]);
    let limited = phi(&[
        &format!("strategy.cost.macs={limit}"),
        "strategy.strength=0.5",
    ]);
    let want: Vec<f64> = (0..start.len())
        .map(|i| {
            let moved = |by: f64| {
                let mut moved = start.clone();
                moved[i] += by;
                cost(&moved)
            };
            plain[i] - 0.1 * 0.5 * (moved(1e-5) - moved(-1e-5)) / 2e-5 / limit
        })
        .collect();
    assert_close(&limited, &want, 1e-8, "φ after a step");
    assert!(
        plain
            .iter()
            .zip(&limited)
            .any(|(a, b)| (a - b).abs() > 1e-4)
    );
}

/// A search's own costs: of its task and of networks of `CONSTRAINED`'s size.
fn own_macs(search: &Search) -> CostModel {
    let size = NetworkOptions {
        cells: None,
        ..small()
    };
    CostModel::new(cost("macs"), search.space(), search.task(), size).unwrap()
}

/// Of small spaces all architectures: by a sum, by one of edges that compete, and where there is no sum by those that are drawn.
#[test]
fn the_dearest_architecture_is_found() {
    for space in [toy(), contest()] {
        let space = space.as_ref();
        let uniform = soft(space.spec(), 0);
        let weights = space.spec().to_marginals(&uniform);
        for name in COSTS {
            let model = model(name, space, small());
            let all = enumerated(space, &weights).into_iter();
            let most = all
                .map(|(choice, _)| model.of(space, &choice).unwrap())
                .fold(0.0, f64::max);
            let found = model.dearest(space).unwrap();
            assert!((found / most - 1.0).abs() < 1e-9, "{name}: {found} {most}");
        }
    }
}
