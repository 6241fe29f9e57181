//! Every registered space with its supernet and its options, every dataset that needs no files, every descriptor.

use std::collections::BTreeSet;

use nasfw_conformance::{self as conformance, Report};
use nasfw_framework::prelude::*;
use nasfw_framework::registry::{Kind, Parse, Plugin};
use nasfw_framework::trainer::Inputs;
use serde_json::{Value, json};

use crate::strategies::{registered, section};

const TASK: Task = Task {
    channels: 3,
    height: 16,
    width: 16,
    classes: 3,
};

/// The defaults with few channels and cells, where a space has such options.
fn small(plugin: &Plugin) -> Value {
    let defaults = plugin.default_section().unwrap();
    let sizes = [("channels", json!(2)), ("cells", json!(3))];
    let has = |key: &str| defaults.get(key).is_some_and(Value::is_number);
    let set: Vec<(&str, Value)> = sizes.into_iter().filter(|(key, _)| has(key)).collect();
    section(plugin, &set)
}

/// Small tensors gain nothing from threads, and tests that run beside each other lose.
fn one_thread() {
    tch::set_num_threads(1);
}

/// Prints a report and requires that all of it holds.
fn require(report: &Report, at_least: usize) {
    println!("{report}");
    report.ok().unwrap();
    assert!(report.held().len() >= at_least, "{report}");
}

#[test]
fn every_registered_space_and_supernet_conforms() {
    one_thread();
    let plugins = registered(Kind::Space);
    assert!(plugins.len() >= 14);
    for plugin in plugins {
        let began = std::time::Instant::now();
        let Parse::Space(parse) = plugin.parse else {
            panic!("kind")
        };
        let space = parse(&small(plugin)).unwrap().build().unwrap();
        require(&conformance::space(plugin.name, space.as_ref(), TASK), 3);
        let net = space.supernet(TASK, &SupernetOptions::default()).unwrap();
        let report = conformance::supernet(plugin.name, space.as_ref(), net.as_ref(), TASK);
        require(&report, 5);
        // A loss that is a formula has no weights of candidates, and what is trained alone has one candidate.
        let none = ["standalone", "toy-planted", "toy-quadratic"].contains(&plugin.name);
        assert_eq!(net.own_weights().is_empty(), none, "{}", plugin.name);
        println!("  {:.1} s", began.elapsed().as_secs_f64());
    }
}

#[test]
fn every_option_of_a_space_matters() {
    one_thread();
    let mut broken = vec![];
    for plugin in registered(Kind::Space) {
        let report = conformance::space_options(plugin, &small(plugin), TASK);
        broken.extend(report.ok().err().map(|e| e.to_string()));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_descriptor_conforms() {
    for kind in Kind::ALL {
        for plugin in registered(kind) {
            require(&conformance::plugin(plugin), 7);
        }
    }
}

#[test]
fn proxies_conform() {
    one_thread();
    let plugins = registered(Kind::Proxy);
    assert!(plugins.len() >= 13);
    for plugin in plugins {
        let section = plugin.default_section().unwrap();
        require(&conformance::proxy(plugin, &section), 8);
    }
}

#[test]
fn costs_conform() {
    let plugins = registered(Kind::Cost);
    assert!(plugins.len() >= 4);
    // One that looks up goes by a table of the suite's own networks.
    let dir = tempfile::tempdir().unwrap();
    let table = dir.path().join("table.csv");
    let pieces = conformance::networks_of_costs();
    let pieces: BTreeSet<String> = pieces
        .iter()
        .flat_map(|network| network.pieces())
        .map(|piece| piece.key().to_owned())
        .collect();
    let rows = pieces.iter().map(|key| format!("{key},{}e-6\n", key.len()));
    let rows: String = rows.collect();
    std::fs::write(&table, format!("piece,seconds\nnetwork,1e-6\n{rows}")).unwrap();
    for plugin in plugins {
        let mut section = plugin.default_section().unwrap();
        if let Some(value) = section.get_mut("table") {
            *value = table.to_str().unwrap().into();
        }
        require(&conformance::cost(plugin, &section), 5);
    }
}

#[test]
fn trackers_conform() {
    // The other one needs a server; tests/it/mlflow.rs has it.
    let own = registered(Kind::Tracker)
        .into_iter()
        .filter(|p| p.name != "mlflow");
    let reports: Vec<Report> = own
        .map(|p| conformance::tracker(p, &p.default_section().unwrap()))
        .collect();
    assert!(!reports.is_empty());
    reports.iter().for_each(|report| require(report, 4));
}

#[test]
fn datasets_without_files_conform() {
    let mut loaded = 0;
    for plugin in registered(Kind::Dataset) {
        let Parse::Dataset(parse) = plugin.parse else {
            panic!("kind")
        };
        let dataset = || parse(&plugin.default_section().unwrap()).unwrap();
        let load = || dataset().load(&DataSource::default());
        // The others say which files they need.
        if let Ok(first) = load() {
            // A network that was trained on them sees them as they are.
            let inputs = Inputs::of(dataset().as_ref(), &first);
            let shown = inputs.load(dataset().as_ref(), &DataSource::default());
            assert_eq!(
                shown.unwrap().checksum(),
                first.checksum(),
                "{}",
                plugin.name
            );
            // Blank on purpose: its label tells the half.
            if plugin.name != "toy-halves" {
                let (dataset, source) = (dataset(), DataSource::default());
                require(
                    &conformance::dataset(plugin.name, dataset.as_ref(), &source),
                    7,
                );
            }
            loaded += 1;
        }
    }
    assert!(loaded >= 3);
}
