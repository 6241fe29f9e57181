//! Every registered strategy.

use nasfw_framework::conformance::{self, Problem, Report};
use nasfw_framework::registry::{Kind, Parse, Plugin, Registry};
use serde_json::{Value, json};

/// Plugins of this program, without the doubles of these tests.
pub fn registered(kind: Kind) -> Vec<&'static Plugin> {
    let registry = Registry::load().unwrap();
    let own = env!("CARGO_PKG_NAME");
    registry.of(kind).filter(|p| p.crate_name != own).collect()
}

/// A plugin's default section with some keys set.
pub fn section(plugin: &Plugin, set: &[(&str, Value)]) -> Value {
    let mut section = plugin.default_section().unwrap();
    for (key, value) in set {
        section[*key] = value.clone();
    }
    section
}

/// The report on a strategy: on the suite's problem, or for those that it does not suit on one of their own.
fn checked(plugin: &Plugin) -> Report {
    if plugin.name != "train" {
        return conformance::strategy(plugin);
    }
    let registry = Registry::load().unwrap();
    let space = registry.get(Kind::Space, "standalone").unwrap();
    let images = registry.get(Kind::Dataset, "synthetic").unwrap();
    let (Parse::Space(space_of), Parse::Dataset(images_of)) = (space.parse, images.parse) else {
        panic!("kinds");
    };
    let space = space_of(&section(
        space,
        &[("channels", json!(2)), ("cells", json!(3))],
    ));
    let images = images_of(&section(
        images,
        &[
            ("images", json!(16)),
            ("test_images", json!(8)),
            ("size", json!(8)),
        ],
    ));
    let problem = Problem::new(space.unwrap().as_ref(), images.unwrap().as_ref()).unwrap();
    conformance::strategy_on(plugin, &section(plugin, &[]), &problem)
}

#[test]
fn every_registered_strategy_conforms() {
    let plugins = registered(Kind::Strategy);
    assert!(plugins.len() >= 4);
    for plugin in plugins {
        let began = std::time::Instant::now();
        let report = checked(plugin);
        println!("{report}  {:.1} s", began.elapsed().as_secs_f64());
        report.ok().unwrap();
        // A strategy to which nothing applies is not enrolled.
        assert!(report.held().len() >= 8, "{report}");
    }
}
