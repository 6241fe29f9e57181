//! Strategies that wrap another one: how they are configured, what they leave as it is, what they change.

use nasfw::framework::Error;
use nasfw::framework::config::{Layer, Resolved, resolve};
use nasfw::framework::events::Event;
use nasfw::framework::registry::Registry;

use crate::strategies::{Done, config, search};

fn resolved(set: &[&str]) -> Result<Resolved, Error> {
    let registry = Registry::load().unwrap();
    let option = |s: &&str| {
        let (key, value) = s.split_once('=').unwrap();
        (key.to_owned(), value.to_owned(), format!("--set {s}"))
    };
    let options = set.iter().map(option).collect();
    resolve(&registry, &[Layer::CommandLine(options)])
}

#[test]
fn a_base_brings_its_own_defaults_and_families() {
    let usual = resolved(&["strategy.name=darts-es", "dataset.name=cifar10"]);
    let usual = usual.unwrap().value;
    assert_eq!(usual["strategy"]["base"]["name"], "darts");
    // The wrapper's word on its usual base is the stronger one.
    assert_eq!(usual["strategy"]["base"]["order"], 2);
    assert_eq!(usual["strategy"]["base"]["arch"]["lr"], 3e-4);
    assert_eq!(usual["trainer"]["epochs"], 50);

    let other = resolved(&[
        "strategy.name=sdarts-rs",
        "strategy.base.name=pc-darts",
        "strategy.base.arch_start=0.5",
        "space.name=nasbench201",
        "dataset.name=cifar10",
    ])
    .unwrap();
    let base = &other.value["strategy"]["base"];
    assert_eq!(base["partial_channels"], 4);
    assert_eq!(base["arch_start"], 0.5);
    // The base's settings on the space, and the wrapper's.
    assert_eq!(other.value["trainer"]["batch_size"], 64);
    assert_eq!(other.value["trainer"]["epochs"], 100);
    let es = resolved(&["strategy.name=darts-es", "strategy.base.name=vim"]).unwrap();
    assert!(es.value["strategy"]["base"].get("order").is_none());
    let preset = [
        "strategy.name=sdarts-adv",
        "strategy.base.preset=second-order",
    ];
    assert_eq!(
        resolved(&preset).unwrap().value["strategy"]["base"]["order"],
        2
    );
    // Wrappers wrap wrappers.
    let both = ["strategy.name=darts-es", "strategy.base.name=sdarts-rs"];
    let both = resolved(&both).unwrap().value;
    assert_eq!(both["strategy"]["base"]["base"]["name"], "darts");
}

#[test]
fn mistakes_in_a_base_are_named_where_they_are() {
    let message = |set: &[&str]| match resolved(set) {
        Err(e) => format!("{e:?}"),
        Ok(_) => {
            let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
            format!("{:?}", config(&set).unwrap_err())
        }
    };
    let typo = message(&["strategy.name=darts-es", "strategy.base.ordr=1"]);
    assert!(typo.contains("strategy.base.order"), "{typo}");
    let unknown = message(&["strategy.name=darts-es", "strategy.base.name=pcdarts"]);
    assert!(unknown.contains("pc-darts"), "{unknown}");
    let range = message(&["strategy.name=darts-es", "strategy.base.order=3"]);
    assert!(range.contains("\"strategy.base.order\""), "{range}");
}

const TOY: [&str; 6] = [
    "space.name=toy-conv",
    "dataset.name=synthetic",
    "dataset.images=64",
    "dataset.size=8",
    "precision=double",
    "trainer.batch_size=8",
];

fn on_toy(set: &[&str]) -> Done {
    search(&[&TOY[..], set].concat()).unwrap()
}

#[test]
fn smooth_darts_without_a_radius_is_its_base() {
    for base in ["darts", "pc-darts", "vim"] {
        let name = format!("strategy.name={base}");
        let wrapped = format!("strategy.base.name={base}");
        let plain = on_toy(&[&name, "trainer.epochs=3"]).outcome;
        for wrapper in ["sdarts-rs", "sdarts-adv"] {
            let run = |end: &str| {
                let wrapper = format!("strategy.name={wrapper}");
                let end = format!("strategy.radius.end={end}");
                let set = [
                    &wrapper,
                    &wrapped,
                    "strategy.radius.start=0.0",
                    &end,
                    "trainer.epochs=3",
                ];
                on_toy(&set).outcome
            };
            let flat = |o: &nasfw::framework::trainer::Outcome| -> Vec<f64> {
                o.marginals
                    .iter()
                    .flatten()
                    .flatten()
                    .flatten()
                    .copied()
                    .collect()
            };
            let apart = |a: &[f64], b: &[f64]| {
                a.iter()
                    .zip(b)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f64::max)
            };
            let (still, moved) = (flat(&run("0.0")), flat(&run("0.3")));
            let plain = flat(&plain);
            assert!(apart(&plain, &still) < 1e-9, "{wrapper} of {base}");
            assert!(apart(&plain, &moved) > 1e-7, "{wrapper} of {base}");
        }
    }
}

/// Any growth at all is an alarm.
const ALARM: [&str; 6] = [
    "strategy.alarm.every=1",
    "strategy.alarm.window=1",
    "strategy.alarm.apart=2",
    "strategy.alarm.factor=0.0",
    "strategy.alarm.earliest=2",
    "trainer.epochs=8",
];

fn controls(done: &Done) -> Vec<(u64, String)> {
    let control = |e: &Event| match e {
        Event::Control { epoch, what } => Some((*epoch, what.clone())),
        _ => None,
    };
    done.events.iter().filter_map(control).collect()
}

#[test]
fn an_alarm_ends_the_search_with_the_architecture_from_before() {
    let done = on_toy(&[&["strategy.name=darts-es"], &ALARM[..]].concat());
    // Epochs 2 and 4 (from 0) are compared when five are done.
    let controls = controls(&done);
    assert_eq!(controls.len(), 1, "{controls:?}");
    assert_eq!(controls[0].0, 5);
    assert!(controls[0].1.contains("that of epoch 3"), "{controls:?}");
    let then = done.events.iter().find_map(|e| match e {
        Event::Architecture {
            epoch: 3, genotype, ..
        } => Some(genotype),
        _ => None,
    });
    assert_eq!(then, Some(&done.outcome.genotype));
    assert_eq!(done.outcome.epochs, 5);
}

#[test]
fn alarms_go_back_and_raise_the_decay_up_to_its_maximum() {
    let more = [
        "strategy.most=0.03",
        "strategy.raise=10.0",
        "trainer.weights.weight_decay=3e-4",
    ];
    let done = on_toy(&[&["strategy.name=darts-ada"], &ALARM[..], &more].concat());
    let controls = controls(&done);
    assert_eq!(controls.len(), 2, "{controls:?}");
    for (epoch, what) in &controls {
        assert_eq!(*epoch, 3);
        assert!(what.contains("back to the end of epoch 3"), "{what}");
    }
    let mut decays: Vec<f64> = done
        .events
        .iter()
        .filter_map(|e| match e {
            Event::Progress { scalars, .. } => Some(scalars["weight_decay"]),
            _ => None,
        })
        .collect();
    decays.dedup();
    for (found, raised) in decays.iter().zip([3e-4, 3e-3, 3e-2]) {
        assert!((found - raised).abs() < 1e-12, "{decays:?}");
    }
    assert_eq!(decays.len(), 3, "{decays:?}");
    assert_eq!(done.outcome.epochs, 8);
}

#[test]
fn two_skip_connections_end_darts_plus() {
    let done = search(&[
        "strategy.name=darts-plus",
        "strategy.base.init_std=2.0",
        "space.name=nasbench201",
        "space.channels=2",
        "space.cells=1",
        "dataset.name=synthetic",
        "dataset.images=32",
        "dataset.size=8",
        "trainer.batch_size=8",
        "trainer.epochs=2",
        "strategy.skips=1",
        "benchmark.name=none",
        "seed=3",
    ])
    .unwrap();
    let skips = done.outcome.genotype.cells[0]
        .nodes
        .iter()
        .flat_map(|n| &n.inputs)
        .filter(|e| e.op.as_deref() == Some("skip_connect"))
        .count();
    assert!(skips >= 1, "{}", done.outcome.genotype);
    assert!(
        done.outcome.reason.contains("skip connection"),
        "{}",
        done.outcome.reason
    );
    assert_eq!(done.outcome.epochs, 1);
}
