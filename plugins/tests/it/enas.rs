//! ENAS: the controller against its equations and its enumeration, REINFORCE against the exact gradient, the two phases of an
//! epoch, and what is selected.

use nasfw_plugins::enas::{Controller, Shape};
use nasfw_spaces::toy::planted::{Landscape, Planted};
use tch::no_grad;

use super::distribution::assert_close;
use super::spied::{begun, space, stepped};
use super::*;

const SHAPE: Shape = Shape {
    hidden: 3,
    layers: 2,
    tanh_constant: 2.5,
    temperature: 0.7,
};

/// A controller far from its start, where decisions depend on each other.
fn controller(spec: &ArchSpec, seed: u64) -> (Controller, Tensor) {
    let controller = Controller::new(spec, SHAPE).unwrap();
    let shape = [controller.layout().numel()];
    let rng = &mut Streams::new(seed).at("phi", 0);
    let phi = nasfw_framework::rng::normal(rng, &shape, Kind::Double, Device::Cpu);
    (controller, phi)
}

/// Two kinds of rows of operations, one of them twice, and one of topology that keeps two of three.
fn small_spec() -> ArchSpec {
    spec(vec![
        group("a", Role::Operations, &[(3, 1), (2, 1), (3, 1)]),
        group("t", Role::Topology, &[(3, 2)]),
    ])
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// log p of decisions in plain loops, gates in the order input, forget, cell, output.
fn by_hand(
    named: &std::collections::BTreeMap<String, Vec<f64>>,
    rows: &[(usize, usize)],
    decided: &[usize],
) -> f64 {
    let h = SHAPE.hidden as usize;
    let of = |name: String| named[&name].clone();
    let mut x = of("start".into());
    let mut memory = vec![(vec![0.0; h], vec![0.0; h]); SHAPE.layers];
    let mut log_p = 0.0;
    for (&(kind, n), &a) in rows.iter().zip(decided) {
        for (l, (state, cell)) in memory.iter_mut().enumerate() {
            let [wi, ws, bi, bs] = ["input", "state", "input bias", "state bias"]
                .map(|part| of(format!("layer {l} {part}")));
            let gate = |g: usize, k: usize| {
                let row = g * h + k;
                let products = (0..h).map(|j| wi[row * h + j] * x[j] + ws[row * h + j] * state[j]);
                products.sum::<f64>() + bi[row] + bs[row]
            };
            let (new, out): (Vec<f64>, Vec<f64>) = (0..h)
                .map(|k| {
                    let c = sigmoid(gate(1, k)) * cell[k] + sigmoid(gate(0, k)) * gate(2, k).tanh();
                    (c, sigmoid(gate(3, k)) * c.tanh())
                })
                .unzip();
            (*cell, *state) = (new, out.clone());
            x = out;
        }
        let (w, b) = (of(format!("head {kind}")), of(format!("head {kind} bias")));
        let logits: Vec<f64> = (0..n)
            .map(|c| {
                let z = (0..h).map(|j| w[c * h + j] * x[j]).sum::<f64>() + b[c];
                SHAPE.tanh_constant * (z / SHAPE.temperature).tanh()
            })
            .collect();
        log_p += logits[a] - logits.iter().map(|l| l.exp()).sum::<f64>().ln();
        x = of(format!("embedding {kind}"))[a * h..(a + 1) * h].to_vec();
    }
    log_p
}

#[test]
fn the_controller_is_an_lstm_whose_rows_share_what_their_candidates_share() {
    let spec = small_spec();
    let (controller, phi) = controller(&spec, 1);
    let named: std::collections::BTreeMap<String, Vec<f64>> = controller
        .layout()
        .named(&phi)
        .map(|(name, t)| (name.to_owned(), numbers(&t)))
        .collect();
    // The row of topology has three subsets, of other names.
    let rows = [(0, 3), (1, 2), (0, 3), (2, 3)];
    let mut sum = 0.0;
    for (number, choice) in spec.enumerate().enumerate() {
        let pairs = nasfw_framework::arch::subsets(3, 2);
        let last = pairs.iter().position(|p| p == choice.kept(1, 0)).unwrap();
        let decided: Vec<usize> = (0..3).map(|r| choice.kept(0, r)[0]).chain([last]).collect();
        let (ours, expected) = (
            log_prob(&controller, &phi, &choice),
            by_hand(&named, &rows, &decided),
        );
        assert!(
            (ours - expected).abs() < 1e-12,
            "{number}: {ours} {expected}"
        );
        sum += expected.exp();
    }
    assert!((sum - 1.0).abs() < 1e-12);
    let names = |spec: &ArchSpec| {
        Controller::new(spec, SHAPE)
            .unwrap()
            .layout()
            .entries()
            .count()
    };
    // NAS-Bench-201's six edges have one embedding and one output layer.
    assert_eq!(names(space("nasbench201").spec()), 1 + 2 * 4 + 3);
}

/// The expectation of what is kept, and draws as frequent as their probabilities, drawn together and one by one.
#[test]
fn means_and_draws_are_those_of_the_enumeration() {
    let spec = small_spec();
    let (controller, phi) = controller(&spec, 2);
    let all: Vec<(Choice, f64)> = spec
        .enumerate()
        .map(|c| (c.clone(), log_prob(&controller, &phi, &c).exp()))
        .collect();
    let expected = |g: usize, r: usize, c: usize| -> f64 {
        let keep = spec.groups()[g].rows[r].keep as f64;
        let with = all
            .iter()
            .filter(|(choice, _)| choice.kept(g, r).contains(&c));
        with.map(|(_, p)| p / keep).sum()
    };
    for (g, rows) in spec
        .to_marginals(&controller.mean(&phi).unwrap())
        .iter()
        .enumerate()
    {
        for (r, row) in rows.iter().enumerate() {
            let exact: Vec<f64> = (0..row.len()).map(|c| expected(g, r, c)).collect();
            assert_close(row, &exact, 1e-12, "mean");
        }
    }
    const DRAWS: usize = 6000;
    let drawn = controller
        .draws(&phi, DRAWS, &mut Streams::new(4).at("draws", 0))
        .unwrap();
    let chi2: f64 = all
        .iter()
        .map(|(choice, p)| {
            let seen = drawn.choices.iter().filter(|c| *c == choice).count() as f64;
            (seen - p * DRAWS as f64).powi(2) / (p * DRAWS as f64)
        })
        .sum();
    // 53 degrees of freedom: above this once in ten thousand.
    assert_eq!(all.len(), 54);
    assert!(chi2 < 98.0, "{chi2}");
    let (entropy, logs) = (numbers(&drawn.entropy), numbers(&drawn.log_prob));
    for (i, choice) in drawn.choices.iter().take(20).enumerate() {
        assert!((logs[i] - log_prob(&controller, &phi, choice)).abs() < 1e-12);
        let one = controller
            .draw(&phi, &mut Streams::new(5).at("one", i as u64))
            .unwrap();
        one.check_complete(&spec).unwrap();
    }
    // Its expectation is the entropy of all decisions together.
    let exact: f64 = all.iter().map(|(_, p)| -p * p.ln()).sum();
    let seen = entropy.iter().sum::<f64>() / DRAWS as f64;
    assert!((seen - exact).abs() < 0.02, "{seen} {exact}");
}

/// Where there are too many beginnings to enumerate, the mean is that of draws, the same at every call.
#[test]
fn the_mean_of_many_rows_is_that_of_draws() {
    let spec = spec(vec![group("a", Role::Operations, &[(2, 1); 16])]);
    let (controller, phi) = controller(&spec, 3);
    let mean = || numbers(&controller.mean(&phi).unwrap()[0]);
    assert_eq!(mean(), mean());
    const DRAWS: usize = 20_000;
    let drawn =
        no_grad(|| controller.draws(&phi, DRAWS, &mut Streams::new(6).at("draws", 0))).unwrap();
    for (r, p) in mean().chunks(2).enumerate() {
        let second = drawn.choices.iter().filter(|c| c.kept(0, r) == [1]).count();
        let seen = second as f64 / DRAWS as f64;
        // 1024 conditional probabilities, whose standard deviation is at most a half.
        assert!(
            (p[1] - seen).abs() < 5.0 * 0.5 / 32.0,
            "row {r}: {} {seen}",
            p[1]
        );
        assert!((p[0] + p[1] - 1.0).abs() < 1e-12);
    }
}

/// Nine architectures, in a search whose weights and controller stay where they are.
const STILL: [&str; 9] = [
    "strategy.name=enas",
    "space.name=spied",
    "space.of=toy-quadratic",
    "strategy.hidden=4",
    "strategy.arch.lr=0.0",
    "trainer.weights.lr=0.0",
    "trainer.weights.lr_min=0.0",
    "strategy.entropy=2.0",
    "strategy.temperature=0.3",
];

/// The mean of many updates' gradients is the exact one of −E[accuracy + 2 entropies of the draw], the entropy as a number.
#[test]
fn reinforce_estimates_the_exact_gradient() {
    let set = [
        &STILL[..],
        &["strategy.controller_steps=60", "strategy.aggregate=60"],
    ];
    let (mut search, mut strategy) = begun(&set.concat(), 0.7);
    let phi = search.phi();
    let spec = search.space().spec().clone();
    // What the reward of an architecture is in the mean over validation images.
    let shape = Shape {
        hidden: 4,
        layers: 2,
        tanh_constant: 2.5,
        temperature: 0.3,
    };
    let twin = Controller::new(&spec, shape).unwrap();
    assert_eq!(twin.layout().numel(), phi.numel() as i64);
    let log_p =
        |groups: &[Vec<Vec<usize>>]| log_prob(&twin, &phi.detach(), &Choice::new(groups.to_vec()));
    let mut objective = Tensor::zeros([], (Kind::Double, Device::Cpu));
    let mut rewards = vec![];
    for choice in spec.enumerate() {
        let meter = search
            .evaluate(&search.one_hot(&choice), Some(Split::Val), None)
            .unwrap();
        // Entropies of the first row, and of the second given the first.
        let all: Vec<(usize, usize, f64)> = (0..9)
            .map(|i| (i / 3, i % 3, log_p(&[vec![vec![i / 3], vec![i % 3]]]).exp()))
            .collect();
        let first: Vec<f64> = (0..3)
            .map(|a| all.iter().filter(|x| x.0 == a).map(|x| x.2).sum())
            .collect();
        let a = choice.kept(0, 0)[0];
        let second = all.iter().filter(|x| x.0 == a).map(|x| x.2 / first[a]);
        let entropy: f64 = first
            .iter()
            .copied()
            .chain(second)
            .map(|p| -p * p.ln())
            .sum();
        let reward = meter.accuracy + 2.0 * entropy;
        rewards.push(reward);
        objective -= twin.log_prob(&phi, &choice).unwrap().exp() * reward;
    }
    assert!(
        rewards.iter().any(|r| (r - rewards[0]).abs() > 0.1),
        "{rewards:?}"
    );
    let exact = Tensor::run_backward(&[objective], &[&phi], false, false).remove(0);

    let mut estimates = vec![];
    while estimates.len() < 120 {
        let done = stepped(&mut search, &mut *strategy);
        assert_eq!(done.theta.len(), 1);
        estimates.extend(done.phi.into_iter().flatten());
    }
    let estimates = Tensor::stack(&estimates, 0);
    let mean = estimates.mean_dim([0i64].as_slice(), false, Kind::Double);
    let error = estimates.std_dim([0i64].as_slice(), true, false) / 120f64.sqrt() + 1e-9;
    let z = ((&mean - &exact) / &error).abs().max().double_value(&[]);
    let signal = (&exact / &error).abs().max().double_value(&[]);
    assert!(signal > 10.0, "too few draws: {signal}");
    assert!(z < 5.0, "{z} standard errors off");
}

/// In an epoch every batch trains the weights once, then the controller is updated as often as it says while they rest; rewards
/// are compared with their moving average.
#[test]
fn the_controllers_turn_comes_when_the_images_are_through() {
    let set = [
        "strategy.name=enas",
        "space.name=spied",
        "space.of=nasbench201",
        "strategy.controller_steps=3",
        "strategy.aggregate=2",
    ];
    let (mut search, mut strategy) = begun(&set, 0.1);
    let steps = search.steps_per_epoch();
    assert!(steps > 1);
    for epoch in 0..2 {
        for step in 0..steps {
            let before = search.phi().detach().copy();
            let done = stepped(&mut search, &mut *strategy);
            let last = step + 1 == steps;
            assert_eq!(
                (done.theta.len(), done.phi.len()),
                (1, if last { 3 } else { 0 })
            );
            let still = search.phi().equal(&before);
            assert_eq!(still, !last, "epoch {epoch}, step {step}");
            assert_eq!(done.losses.len(), 1);
            let path = done.losses[0].1[0].iter().all(|row| {
                row.iter().all(|w| *w == 0.0 || *w == 1.0) && row.iter().sum::<f64>() == 1.0
            });
            assert!(path, "{:?}", done.losses[0].1);
        }
    }
    let state = strategy.state().unwrap().values;
    let baseline = state["baseline"].as_f64().unwrap();
    assert!(baseline > 0.0 && baseline < 1.0, "{state}");
}

/// In `toy-planted` the accuracy of an architecture is its value, whatever the weights.
#[test]
fn the_best_of_the_draws_is_selected() {
    let landscape = Landscape::new(&Planted {
        rows: 4,
        candidates: 4,
        coupling: 0.3,
        landscape: 0,
    });
    let mut values = vec![];
    for samples in [1usize, 30] {
        let set = [
            "strategy.name=enas",
            "space.name=toy-planted",
            "trainer.epochs=2",
            "strategy.controller_steps=2",
            "strategy.aggregate=2",
            &format!("strategy.samples={samples}"),
        ];
        let (mut search, mut strategy) = begun(&set, 0.0);
        for _ in 0..2 * search.steps_per_epoch() {
            stepped(&mut search, &mut *strategy);
        }
        let shape = Shape {
            hidden: 32,
            temperature: 5.0,
            ..SHAPE
        };
        let twin = Controller::new(search.space().spec(), shape).unwrap();
        let drawn = twin
            .draws(&search.phi(), samples, &mut search.rng("selection"))
            .unwrap();
        let best = drawn
            .choices
            .iter()
            .map(|c| landscape.value(c))
            .fold(0.0, f64::max);
        let found = strategy.derive(&search).unwrap();
        assert!((landscape.value(&found) - best).abs() < 1e-9, "{samples}");
        assert!(drawn.choices.contains(&found));
        values.push(best);
    }
    assert!(values[0] < values[1], "{values:?}");
}
