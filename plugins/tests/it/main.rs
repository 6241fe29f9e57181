//! VIM through the public traits: its distribution against enumeration and finite differences, its options through the
//! trainer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use nasfw_plugins as _;

mod asng;
mod beta_darts;
mod costs;
mod coupling;
mod darts_pt;
mod derivations;
mod distribution;
mod drnas;
mod enas;
mod families;
mod game;
mod generator;
mod lambda_darts;
mod oles;
mod options;
mod parsec;
mod partial;
mod predictors;
mod progressive;
mod proxies;
mod pyramid;
mod reinmax;
mod rsps;
mod setn;
mod sgas;
mod shapley_nas;
mod sparse;
mod spied;
mod steps;
mod te_nas;
mod zero_cost;

use nasfw_framework::config::{Layer, RunConfig, resolve};
use nasfw_framework::prelude::*;
use nasfw_framework::registry::{Kind as Plugins, Registry};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

use nasfw_plugins::vim::VimConfig;

/// The preset `literal`, with some options of `[strategy]` set.
fn config(set: &[(&str, Value)]) -> VimConfig {
    let registry = Registry::load().unwrap();
    let plugin = registry.get(Plugins::Strategy, "vim").unwrap();
    let mut section = plugin.default_section().unwrap();
    section.as_object_mut().unwrap().remove("name");
    let literal: Value = toml::from_str(plugin.preset("literal").unwrap()).unwrap();
    for (key, value) in literal["strategy"].as_object().unwrap() {
        match value.as_object() {
            Some(table) => table.iter().for_each(|(k, v)| section[key][k] = v.clone()),
            None => section[key] = value.clone(),
        }
    }
    for (key, value) in set {
        section[*key] = value.clone();
    }
    serde_json::from_value(section).unwrap()
}

/// A run as its settings, `KEY=VALUE`, say; of two values of a key the later counts.
fn config_of(set: &[&str]) -> RunConfig {
    let option = |s: &&str| {
        let (key, value) = s.split_once('=').unwrap();
        (key.to_owned(), value.to_owned(), format!("--set {s}"))
    };
    let registry = Registry::load().unwrap();
    let options = set.iter().map(option).collect();
    let resolved = resolve(&registry, &[Layer::CommandLine(options)]).unwrap();
    RunConfig::new(&registry, &resolved).unwrap()
}

/// Rows given as (candidates, keep).
fn group(name: &str, role: Role, rows: &[(usize, usize)]) -> Group {
    let row = |(i, &(n, keep)): (usize, &(usize, usize))| Row {
        name: format!("row {i}"),
        candidates: (0..n).map(|c| format!("c{c}")).collect(),
        keep,
    };
    Group {
        name: name.into(),
        role,
        rows: rows.iter().enumerate().map(row).collect(),
        edges: None,
    }
}

fn spec(groups: Vec<Group>) -> ArchSpec {
    ArchSpec::new(groups).unwrap()
}

/// Two groups of operations of one shape, and ragged topology; some rows keep two.
fn mixed_spec() -> ArchSpec {
    spec(vec![
        group("a", Role::Operations, &[(3, 1), (3, 1)]),
        group("b", Role::Operations, &[(3, 1), (3, 2)]),
        group("t", Role::Topology, &[(2, 1), (4, 2)]),
    ])
}

/// The strategy and a starting φ. Its distribution is [`of`] it.
fn build(config: &VimConfig, spec: &ArchSpec, seed: u64) -> (Box<dyn Strategy>, Tensor) {
    let cx = BuildContext {
        spec,
        streams: Streams::new(seed),
        kind: Kind::Double,
        device: Device::Cpu,
        epochs: 1,
    };
    let vim = config.build(cx).unwrap();
    let phi = of(&*vim).init(Streams::new(seed + 1000), Kind::Double, Device::Cpu);
    (vim, phi)
}

fn of(strategy: &dyn Strategy) -> &dyn ArchDistribution {
    strategy.distribution().unwrap()
}

fn numbers(t: &Tensor) -> Vec<f64> {
    Vec::try_from(t.detach().contiguous().view([-1])).unwrap()
}

fn log_prob(d: &dyn ArchDistribution, phi: &Tensor, choice: &Choice) -> f64 {
    d.log_prob(phi, choice).unwrap().double_value(&[])
}
