//! TE-NAS: indicators against what they are by definition, pruning against the procedure done by hand.

use std::collections::{BTreeMap, BTreeSet};

use nasfw_framework::network::{Conv, LossOptions, Standalone};
use nasfw_framework::rng::normal;
use nasfw_framework::strategy::Strategy;
use nasfw_framework::trainer::advance;
use nasfw_plugins::te_nas::{Change, Fresh, crops, order, pruned, rounded};
use proptest::prelude::{ProptestConfig, prop, prop_assert_eq, proptest};
use serde_json::json;

use super::spied::space;
use super::*;

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

fn supernet(plain: bool) -> Box<dyn Supernet> {
    let task = Task {
        channels: 2,
        height: 8,
        width: 8,
        classes: 3,
    };
    let options = SupernetOptions {
        channels: Some(2),
        cells: Some(1),
        plain,
        ..Default::default()
    };
    space("nasbench201").supernet(task, &options).unwrap()
}

/// Weights of a mixture with some candidates masked.
fn mixture() -> RelaxedArch {
    let mut active = vec![vec![vec![true; 5]; 6]];
    for row in &mut active[0] {
        row[0] = false;
    }
    active[0][3][2] = false;
    let weights = Tensor::from_slice2(
        &active[0]
            .iter()
            .map(|row| {
                let n = row.iter().filter(|a| **a).count() as f64;
                row.iter().map(|a| f64::from(*a) / n).collect::<Vec<f64>>()
            })
            .collect::<Vec<_>>(),
    );
    RelaxedArch::new(vec![weights]).with_active(active)
}

/// K_ij is the slope of image j's summed logits along the gradient of image i's: by differences, of a network without fused
/// kernels. Biases of the classifier have no part in it.
#[test]
fn the_kernel_is_made_of_gradients_of_images() {
    let (fast, plain) = (supernet(false), supernet(true));
    let theta = fast
        .layout()
        .init(Streams::new(2), DOUBLE.0, DOUBLE.1)
        .set_requires_grad(true);
    let images = normal(
        &mut Streams::new(3).at("images", 0),
        &[3, 2, 8, 8],
        DOUBLE.0,
        DOUBLE.1,
    );
    let (arch, noise) = (mixture(), Streams::new(0));
    let kernel = Fresh::new(fast.as_ref(), &theta, noise)
        .kernel(&images, &arch)
        .unwrap();
    let stats = Tensor::zeros([0], DOUBLE);
    let sums = |theta: &Tensor| {
        let weights = Weights {
            params: theta,
            stats: &stats,
        };
        let logits = plain
            .forward(weights, &images, &arch, Mode::Train, noise)
            .unwrap();
        logits.sum_dim_intlist([1i64].as_slice(), false, Kind::Double)
    };
    let mut biases = 0;
    for i in 0..3 {
        let gradient =
            Tensor::run_backward(&[sums(&theta).get(i)], &[&theta], false, false).remove(0);
        let of_bias = |(name, part): (&str, Tensor)| {
            let some = part.abs().max().double_value(&[]) > 1e-3;
            usize::from(!name.contains("weight") && some)
        };
        biases += plain.layout().named(&gradient).map(of_bias).sum::<usize>();
        let parts: Vec<Tensor> = plain
            .layout()
            .named(&gradient)
            .map(|(name, part)| {
                let keep = f64::from(name.contains("weight"));
                (part * keep).reshape([-1])
            })
            .collect();
        let masked = Tensor::cat(&parts, 0);
        let step = 1e-6;
        let moved = |by: f64| tch::no_grad(|| sums(&(theta.detach() + &masked * by)));
        let slopes = (moved(step) - moved(-step)) / (2.0 * step);
        for j in 0..3 {
            let (a, b) = (kernel.double_value(&[i, j]), slopes.double_value(&[j]));
            assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{i} {j}: {a} {b}");
        }
    }
    assert!(biases > 0);
    // Of a 2×2 kernel the eigenvalues are known.
    let two = images.narrow(0, 0, 2);
    let fresh = Fresh::new(fast.as_ref(), &theta, noise);
    let k = fresh.kernel(&two, &arch).unwrap();
    let [a, b, d] = [[0, 0], [0, 1], [1, 1]].map(|at| k.double_value(&at));
    let root = ((a - d).powi(2) + 4.0 * b * b).sqrt();
    let expected = (a + d + root) / (a + d - root);
    let found = fresh.condition(&two, &arch).unwrap();
    assert!(
        found > 1.0 && (found - expected).abs() < 1e-6 * expected,
        "{found} {expected}"
    );
}

/// Three ReLUs of one pixel have at most as many patterns as their lines leave pieces: counted one by one.
#[test]
fn regions_are_patterns_of_relus() {
    let task = Task {
        channels: 1,
        height: 1,
        width: 2,
        classes: 2,
    };
    let (mut b, images) = NetworkBuilder::new(task);
    let wide = Conv {
        kernel: [1, 2],
        padding: [0, 0],
        bias: true,
        ..Conv::same(1)
    };
    let x = b.conv("lines", images, 3, wide);
    let x = b.relu(x);
    let logits = b.linear("classifier", x, 2);
    let net = Standalone::new(b.finish(logits, None).unwrap(), LossOptions::default()).unwrap();
    for seed in 0..5 {
        let theta = net.layout().init(Streams::new(seed), DOUBLE.0, DOUBLE.1);
        let images = normal(
            &mut Streams::new(seed).at("images", 0),
            &[200, 1, 1, 2],
            DOUBLE.0,
            DOUBLE.1,
        );
        let parts: BTreeMap<_, _> = net.layout().named(&theta).collect();
        let (w, bias) = (
            numbers(&parts["lines.weight"]),
            numbers(&parts["lines.bias"]),
        );
        let pixels = numbers(&images);
        let patterns: BTreeSet<Vec<bool>> = pixels
            .chunks(2)
            .map(|x| {
                (0..3)
                    .map(|k| w[2 * k] * x[0] + w[2 * k + 1] * x[1] + bias[k] > 0.0)
                    .collect()
            })
            .collect();
        let fresh = Fresh::new(&net, &theta, Streams::new(0));
        let found = fresh.regions(&images, &RelaxedArch::new(vec![])).unwrap();
        assert_eq!(found, patterns.len() as f64);
        // Three lines cut the plane into seven pieces at most.
        assert!((2..=7).contains(&patterns.len()));
    }
}

#[test]
fn crops_are_parts_of_images() {
    let images = Tensor::arange(2 * 3 * 5 * 6, DOUBLE).view([2, 3, 5, 6]);
    let mut seen = BTreeSet::new();
    for draw in 0..200 {
        let found = crops(&images, 2, &mut Streams::new(1).at("crops", draw)).unwrap();
        assert_eq!(found.size(), [2, 1, 2, 2]);
        for i in 0..2 {
            let at = numbers(&found.get(i));
            let first = at[0] as i64 - i * 90;
            let (channel, y, x) = (first / 30, first % 30 / 6, first % 6);
            assert!((0..3).contains(&channel) && y <= 3 && x <= 4);
            assert_eq!(at, [at[0], at[0] + 1.0, at[0] + 6.0, at[0] + 7.0]);
            seen.insert((channel, y, x));
        }
    }
    assert_eq!(seen.len(), 3 * 4 * 5);
    assert!(crops(&images, 6, &mut Streams::new(1).at("crops", 0)).is_err());
}

/// The published program's procedure, list by list.
fn by_hand(changes: &[Change], digits: i32) -> Vec<usize> {
    let n = changes.len();
    let ranks = |value: &dyn Fn(usize) -> f64| {
        let mut sorted: Vec<usize> = (0..n).collect();
        sorted.sort_by(|a, b| value(*a).total_cmp(&value(*b)));
        let mut ranks = vec![0; n];
        for (k, &i) in sorted.iter().enumerate() {
            if k > 0 {
                let before = sorted[k - 1];
                ranks[i] = ranks[before] + usize::from(value(i) != value(before));
            }
        }
        (ranks, sorted)
    };
    let (condition, by_condition) = ranks(&|i| -rounded(changes[i].condition, digits));
    let (regions, _) = ranks(&|i| rounded(changes[i].regions, digits));
    // Its dictionary is in the order of κ, and its sort is stable.
    let mut all = by_condition;
    all.sort_by_key(|&i| condition[i] + regions[i]);
    all
}

#[test]
fn numbers_are_rounded_to_significant_digits() {
    for (x, digits, to) in [
        (0.0, 3, 0.0),
        (123_456.0, 3, 123_000.0),
        (-0.001_234_5, 3, -0.001_23),
        (0.999_6, 3, 1.0),
        (f64::INFINITY, 3, f64::INFINITY),
    ] {
        let found = rounded(x, digits);
        assert!(
            found == to || (found - to).abs() < 1e-12 * to.abs(),
            "{x}: {found}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ranks_and_pruning_are_the_procedure_by_hand(
        values in prop::collection::vec((-5i32..5, -5i32..5), 1..30),
        per_row in 1usize..5,
        count in 1usize..4,
    ) {
        // Tenths, and noise beyond three digits, so that there are ties.
        let changes: Vec<Change> = values.iter().enumerate().map(|(i, (a, b))| Change {
            at: (0, i / per_row, i % per_row),
            condition: f64::from(*a) / 10.0 * (1.0 + 1e-6 * i as f64),
            regions: f64::from(*b) / 10.0 * (1.0 - 1e-6 * i as f64),
        }).collect();
        let expected = by_hand(&changes, 3);
        prop_assert_eq!(&order(&changes, 3), &expected);
        let alive = |r: usize| changes.iter().filter(|c| c.at.1 == r).count();
        let gone = pruned(&changes, 3, count, |_, r| alive(r) - 1);
        let rows = values.len().div_ceil(per_row);
        for r in 0..rows {
            let of_row: Vec<_> = expected.iter().map(|&i| changes[i].at).filter(|at| at.1 == r).collect();
            let went: Vec<_> = gone.iter().copied().filter(|at| at.1 == r).collect();
            prop_assert_eq!(&went[..], &of_row[..count.min(alive(r) - 1)]);
        }
    }
}

fn started(set: &[&str]) -> (Search, Box<dyn Strategy>) {
    let base = [
        "device=cpu",
        "threads=1",
        "strategy.name=te-nas",
        "strategy.repeats=2",
        "strategy.region_images=24",
        "strategy.channels=2",
        "strategy.cells=1",
        "trainer.batch_size=4",
        "dataset.name=blots",
    ];
    let config = config_of(&[&base[..], set].concat());
    config.trainer.start(&config).unwrap()
}

type Table = Vec<Vec<Vec<bool>>>;

fn alive(strategy: &dyn Strategy) -> Table {
    serde_json::from_value(strategy.state().unwrap().values["alive"].clone()).unwrap()
}

/// What is tried at this moment by hand: group, row, column.
fn tried(space: &dyn SearchSpace, alive: &Table) -> Vec<(usize, usize, usize)> {
    let count = |g: usize, r: usize| alive[g][r].iter().filter(|a| **a).count();
    let mut all = vec![];
    for (g, r, row) in space.spec().rows() {
        if count(g, r) > row.keep {
            all.extend(
                (0..alive[g][r].len())
                    .filter(|&c| alive[g][r][c])
                    .map(|c| (g, r, c)),
            );
        }
    }
    if !all.is_empty() {
        return all;
    }
    for (g, group) in space.spec().groups().iter().enumerate() {
        let Some(keep) = group.edges_kept() else {
            continue;
        };
        for node in group.nodes() {
            let edges: Vec<usize> = node.into_iter().filter(|&r| count(g, r) > 0).collect();
            if edges.len() > keep {
                let only = |r: usize| (0..alive[g][r].len()).find(|&c| alive[g][r][c]).unwrap();
                return edges.into_iter().map(|r| (g, r, only(r))).collect();
            }
        }
    }
    vec![]
}

/// Round after round, what is gone is what goes by hand from the changes that were noted; at the end one architecture is
/// left, and the search took exactly the steps that it had planned.
fn followed(set: &[&str], count: usize) -> (Box<dyn Strategy>, Search, u64) {
    let (mut search, mut strategy) = started(set);
    let planned = search.steps_per_epoch();
    let first = alive(strategy.as_ref());
    for (g, r, row) in search.space().spec().rows() {
        for (c, name) in row.candidates.iter().enumerate() {
            assert_eq!(first[g][r][c], name != "none");
        }
    }
    let mut rounds = 0;
    while search.clock().step < planned {
        let before = alive(strategy.as_ref());
        let todo = tried(search.space(), &before);
        let mut changes: Vec<Change> = vec![];
        for _ in 0..todo.len() {
            assert_eq!(alive(strategy.as_ref()), before);
            let noted = strategy.state().unwrap().values["changes"].clone();
            changes = serde_json::from_value(noted).unwrap();
            advance(&mut search, strategy.as_mut()).unwrap();
        }
        // The last change of a round is not kept; what went says the rest.
        let after = alive(strategy.as_ref());
        assert!(changes.iter().zip(&todo).all(|(c, at)| c.at == *at));
        let gone: BTreeSet<_> = todo
            .iter()
            .copied()
            .filter(|(g, r, c)| !after[*g][*r][*c])
            .collect();
        let rows: BTreeSet<(usize, usize)> = todo.iter().map(|(g, r, _)| (*g, *r)).collect();
        let of = |table: &Table, g: usize, r: usize| table[g][r].iter().filter(|a| **a).count();
        let crowded = rows.iter().all(|(g, r)| of(&before, *g, *r) > 1);
        if crowded {
            for (g, r) in rows {
                let n = of(&before, g, r);
                assert_eq!(of(&after, g, r), n - count.min(n - 1));
            }
        } else {
            assert_eq!(gone.len(), rows.len() - 2);
        }
        rounds += 1;
    }
    assert!(tried(search.space(), &alive(strategy.as_ref())).is_empty());
    (strategy, search, rounds)
}

#[test]
fn nasbench201_is_pruned_to_one_candidate_an_edge() {
    let (strategy, search, rounds) =
        followed(&["space.name=nasbench201", "trainer.batch_size=4"], 1);
    // Four candidates an edge, one goes from each in a round: 24 + 18 + 12 tries.
    assert_eq!((rounds, search.clock().step), (3, 54));
    let left = alive(strategy.as_ref());
    let choice = strategy.derive(&search).unwrap();
    for r in 0..6 {
        assert_eq!(left[0][r].iter().filter(|a| **a).count(), 1);
        assert!(left[0][r][choice.kept(0, r)[0]] && choice.kept(0, r)[0] != 0);
    }
}

/// A try is what it says: the same mixture without a candidate, at the same weights, on the same images. What is kept of a
/// round follows from that.
#[test]
fn changes_are_those_of_the_indicators() {
    let (mut search, mut strategy) = started(&[
        "space.name=nasbench201",
        "strategy.repeats=1",
        "precision=double",
    ]);
    for _ in 0..3 {
        advance(&mut search, strategy.as_mut()).unwrap();
    }
    let state = strategy.state().unwrap().values;
    let changes: Vec<Change> = serde_json::from_value(state["changes"].clone()).unwrap();
    let ticket: Ticket = serde_json::from_value(state["tickets"][0].clone()).unwrap();
    let images = search.batch_again(&ticket).unwrap().images;
    // 24 images of regions in batches of 4, besides those of the kernel.
    assert_eq!(state["tickets"].as_array().unwrap().len(), 1 + 6);
    let streams = Streams::new(0).child("build", 0).child("start", 0);
    let theta = search
        .supernet()
        .layout()
        .init(streams.child("kernel", 0), DOUBLE.0, DOUBLE.1);
    let theta = theta.set_requires_grad(true);
    let condition = |without: Option<(usize, usize, usize)>| {
        let mut active = alive(strategy.as_ref());
        if let Some((g, r, c)) = without {
            active[g][r][c] = false;
        }
        let rows: Vec<Vec<f64>> = active[0]
            .iter()
            .map(|row| {
                let n = row.iter().filter(|a| **a).count() as f64;
                row.iter().map(|a| f64::from(*a) / n).collect()
            })
            .collect();
        let arch = RelaxedArch::new(vec![Tensor::from_slice2(&rows)]).with_active(active);
        let kernel = Fresh::new(search.supernet(), &theta, streams)
            .kernel(&images, &arch)
            .unwrap();
        let values = kernel.linalg_eigvalsh("L");
        values.max().double_value(&[]) / values.min().double_value(&[])
    };
    let before = condition(None);
    assert_eq!(changes.len(), 3);
    for change in &changes {
        let expected = (before - condition(Some(change.at))) / before;
        assert!(
            (change.condition - expected).abs() < 1e-6 * (1.0 + expected.abs()),
            "{change:?} {expected}"
        );
        assert!(change.regions.is_finite() && change.regions < 1.0);
    }
    let kappa = state["before"][0][0].as_f64().unwrap();
    assert!((kappa - before).abs() < 1e-6 * before);
    // Small images have more than a few patterns.
    assert!(state["before"][0][1].as_f64().unwrap() > 4.0);
    // A state of another space, or of another round, is refused.
    let mut foreign = state.clone();
    foreign["alive"][0][0] = json!([true]);
    let refused = strategy.restore(StrategyState {
        values: foreign,
        tensors: BTreeMap::new(),
    });
    assert!(refused.is_err());
    let mut torn = state.clone();
    torn["tickets"] = json!([]);
    assert!(
        strategy
            .restore(StrategyState {
                values: torn,
                tensors: BTreeMap::new()
            })
            .is_err()
    );
    strategy
        .restore(StrategyState {
            values: state,
            tensors: BTreeMap::new(),
        })
        .unwrap();
}

/// Edges that compete: two into every node are left.
#[test]
fn cells_are_pruned_to_two_edges_a_node() {
    let set = [
        "space.name=robust-s2",
        "strategy.prune=1",
        "strategy.repeats=1",
        "strategy.cells=3",
        "strategy.indicators=regions",
        "strategy.region_images=8",
    ];
    let (strategy, search, rounds) = followed(&set, 1);
    // One round of 2 × 14 edges with two candidates; then three crowded nodes a cell.
    assert_eq!(
        (rounds, search.clock().step),
        (1 + 6, 2 * 14 * 2 + 2 * (3 + 4 + 5))
    );
    let choice = strategy.derive(&search).unwrap();
    let left = alive(strategy.as_ref());
    for (g, group) in search.space().spec().groups().iter().enumerate() {
        for node in group.nodes() {
            let kept = node
                .iter()
                .filter(|&&r| !choice.kept(g, r).is_empty())
                .count();
            assert_eq!(kept, 2);
        }
        for (r, left) in left[g].iter().enumerate() {
            let here: Vec<usize> = (0..2).filter(|&c| left[c]).collect();
            assert_eq!(choice.kept(g, r), here);
        }
    }
}
