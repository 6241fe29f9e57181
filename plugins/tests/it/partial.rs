//! PC-DARTS and DARTS-: where nothing of their own is left, they are DARTS; and what they do otherwise.

use nasfw_framework::events::Event;
use nasfw_framework::supernet::AUXILIARY_SKIP;
use proptest::prelude::*;
use serde_json::json;

use super::spied::{Watched, space, watched};
use super::*;

/// A search of a small convolutional space, with settings that all of these strategies have.
fn small(strategy: &str, more: &[&str]) -> Watched {
    let name = format!("strategy.name={strategy}");
    let set = [
        name.as_str(),
        "space.name=toy-conv",
        "dataset.name=vim-test-data",
        "strategy.arch.lr=0.05",
        "trainer.epochs=4",
        "trainer.batch_size=4",
        "trainer.log_every=1",
        "trainer.weights.lr=0.05",
        "trainer.weights.lr_min=0.001",
        "trainer.augment.crop_padding=0",
    ];
    watched(&[&set[..], more].concat())
}

/// What a search found and logged, to the bit, but for names of the strategy.
fn trail(watched: &Watched) -> (String, Marginals, Vec<String>) {
    let losses = watched.events.iter().filter_map(|e| match e {
        Event::Progress { step, meters, .. } => Some(format!("{step} {meters:?}")),
        _ => None,
    });
    (
        watched.outcome.genotype.to_string(),
        watched.outcome.marginals.clone().unwrap(),
        losses.collect(),
    )
}

#[test]
fn pc_darts_with_all_channels_and_no_beta_is_darts() {
    let nothing = [
        "strategy.partial_channels=1",
        "strategy.edge_normalisation=false",
        "strategy.arch_start=0.0",
    ];
    let darts = trail(&small("darts", &[]));
    assert_eq!(trail(&small("pc-darts", &nothing)), darts);
    for own in [
        "partial_channels=2",
        "edge_normalisation=true",
        "arch_start=0.5",
    ] {
        let set = format!("strategy.{own}");
        let more = [&nothing[..], &[set.as_str()]].concat();
        assert_ne!(trail(&small("pc-darts", &more)), darts, "{own}");
    }
}

#[test]
fn darts_minus_without_auxiliary_skips_is_darts() {
    let darts = trail(&small("darts", &[]));
    let none = trail(&small("darts-minus", &["strategy.auxiliary_start=0.0"]));
    assert_eq!(none, darts);
    assert_ne!(trail(&small("darts-minus", &[])), darts);
}

/// The published curves by epoch e of T, in closed form, as they are logged.
#[test]
fn auxiliary_skips_fade_along_the_published_curves() {
    let pi = std::f64::consts::PI;
    let curve = |name: &str, e: f64, t: f64| match name {
        "linear" => (t - e) / t,
        "cosine" => 0.5 * (1.0 + (pi * e / t).cos()),
        _ => (0.5 * pi * e / t).cos(),
    };
    for name in ["linear", "cosine", "slow-cosine"] {
        let decay = format!("strategy.decay={name}");
        let set = [
            "space.name=spied",
            "strategy.name=darts-minus",
            "trainer.log_every=1",
        ];
        let done = watched(&[&set[..], &[&decay, "trainer.epochs=10"]].concat());
        let mut seen = 0;
        for event in &done.events {
            let Event::Progress { step, scalars, .. } = event else {
                continue;
            };
            // 12 images of the first half in batches of 4; events come after their step.
            let epoch = ((step - 1) / 3) as f64;
            let expected = curve(name, epoch, 10.0);
            assert!(
                (scalars[AUXILIARY_SKIP] - expected).abs() < 1e-12,
                "{name} {epoch}"
            );
            seen += 1;
        }
        assert!(seen >= 30, "{seen}");
    }
}

/// Under a budget they fade over the budget, whatever the number of epochs.
#[test]
fn auxiliary_skips_fade_over_a_budget() {
    let set = [
        "space.name=spied",
        "strategy.name=darts-minus",
        "trainer.log_every=1",
    ];
    let budget = ["trainer.budget.unit=steps", "trainer.budget.amount=8"];
    let done = watched(&[&set[..], &budget].concat());
    let logged = done.events.iter().filter_map(|e| match e {
        Event::Progress { scalars, .. } => scalars.get(AUXILIARY_SKIP).copied(),
        _ => None,
    });
    let expected: Vec<f64> = (0..8).map(|step| 1.0 - f64::from(step) / 8.0).collect();
    assert_eq!(logged.collect::<Vec<_>>(), expected);
}

/// α and β rest for 15 of 50 epochs.
#[test]
fn the_architecture_of_pc_darts_rests_at_first() {
    let set = [
        "space.name=spied",
        "strategy.name=pc-darts",
        "trainer.batch_size=4",
    ];
    let Watched { seen, .. } = watched(&[&set[..], &["trainer.epochs=50"]].concat());
    let training: Vec<_> = seen.iter().filter(|s| s.training).collect();
    // Three steps an epoch: one loss each while it rests, two afterwards.
    assert_eq!(training.len(), 15 * 3 + 35 * 3 * 2);
    let first = &training[0].weights;
    assert!(training[..46].iter().all(|s| s.weights == *first));
    assert!(training[46..].iter().all(|s| s.weights != *first));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20) })]

    /// On DARTS's space: with uniform β weights are DARTS's over the number of edges into the node, and the same cell
    /// is derived.
    #[test]
    fn uniform_beta_derives_what_darts_derives(seed in any::<u64>()) {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Plugins::Strategy, "pc-darts").unwrap();
        let config: Box<dyn StrategyConfig> = serde_json::from_value(plugin.default_section().unwrap()).unwrap();
        let darts = space("darts");
        let spec = darts.spec();
        let cx = BuildContext { spec, streams: Streams::new(0), kind: Kind::Double, device: Device::Cpu, epochs: 50 };
        let strategy = config.build(cx).unwrap();
        let distribution = of(&*strategy);
        let options = (Kind::Double, Device::Cpu);
        let alpha = nasfw_framework::rng::normal(&mut Streams::new(seed).at("alpha", 0), &[spec.numel()], options.0, options.1);
        let phi = Tensor::cat(&[&alpha, &Tensor::zeros([28], options)], 0);
        prop_assert_eq!(distribution.layout().numel(), phi.size()[0]);
        let ours = spec.to_marginals(&distribution.mean(&phi).unwrap());
        let theirs = spec.to_marginals(&spec.softmax(&alpha));
        prop_assert_eq!(darts.derive(&ours), darts.derive(&theirs));
        for (g, group) in spec.groups().iter().enumerate() {
            for node in group.nodes() {
                for &r in &node {
                    for (a, b) in ours[g][r].iter().zip(&theirs[g][r]) {
                        prop_assert!((a * node.len() as f64 - b).abs() < 1e-12);
                    }
                }
            }
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let registry = Registry::load().unwrap();
    for (strategy, key, value) in [
        ("pc-darts", "partial_channels", json!(0)),
        ("pc-darts", "arch_start", json!(1.5)),
        ("darts-minus", "auxiliary_start", json!(-0.5)),
        ("p-darts", "kept", json!([3, 5])),
        ("p-darts", "skip_dropout", json!([0.1, 1.0, 0.5])),
    ] {
        let plugin = registry.get(Plugins::Strategy, strategy).unwrap();
        let mut section = plugin.default_section().unwrap();
        section[key] = value;
        let config: Box<dyn StrategyConfig> = serde_json::from_value(section).unwrap();
        let mut v = nasfw_framework::config::Validator::default();
        config.validate(&mut v);
        let problems = v.into_problems();
        assert!(
            problems.iter().any(|p| p.key.contains(key)),
            "{strategy} {key}"
        );
    }
}
