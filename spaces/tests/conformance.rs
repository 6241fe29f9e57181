//! Every space of this crate with its supernet, the framework's distribution, and every descriptor of this crate.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

use nasfw_framework::conformance;
use nasfw_framework::distribution::IndependentSoftmax;
use nasfw_framework::prelude::*;
use nasfw_framework::registry::{Kind, Parse, Registry};
use nasfw_spaces as _;
use serde_json::json;

// Open: `custom` and `robust-s3` miss the finite difference in the parameters by about 0.2 %, cause unknown;
// `robust-s4` breaks `batch-order`, perhaps only because its noise goes by the place in the batch.
#[test]
#[ignore = "three spaces break an invariant, and whether space or suite is wrong is open"]
fn every_registered_space_conforms() {
    let mut broken = String::new();
    for plugin in Registry::load().unwrap().of(Kind::Space) {
        let mut section = plugin.default_section().unwrap();
        for (key, value) in [("channels", 2), ("cells", 3)] {
            if section.get(key).is_some_and(|v| v.is_number()) {
                section[key] = json!(value);
            }
        }
        let Parse::Space(parse) = plugin.parse else {
            panic!("kind")
        };
        let began = std::time::Instant::now();
        let space = match parse(&section).unwrap().build() {
            Ok(space) => space,
            Err(e) => {
                println!("{}: {e}", plugin.name);
                continue;
            }
        };
        let task = Task {
            channels: 3,
            height: 8,
            width: 8,
            classes: 3,
        };
        let mut reports = vec![conformance::space(plugin.name, space.as_ref())];
        match space.supernet(task, &SupernetOptions::default()) {
            Ok(net) => reports.push(conformance::supernet(
                plugin.name,
                space.as_ref(),
                net.as_ref(),
                task,
            )),
            Err(e) => println!("{}: {e}", plugin.name),
        }
        for report in reports {
            println!("{report}  {:.1} s", began.elapsed().as_secs_f64());
            if let Err(e) = report.ok() {
                broken += &format!("{e}\n");
            }
        }
    }
    assert!(broken.is_empty(), "{broken}");
}

#[test]
fn every_descriptor_conforms() {
    for plugin in Registry::load().unwrap().all() {
        conformance::plugin(plugin).ok().unwrap();
    }
}

#[test]
fn the_independent_softmax_conforms() {
    let row = |name: &str, n: usize, keep| Row {
        name: name.into(),
        candidates: (0..n).map(|i| format!("c{i}")).collect(),
        keep,
    };
    let spec = ArchSpec::new(vec![Group {
        name: "g".into(),
        role: Role::Operations,
        rows: vec![row("a", 3, 1), row("b", 4, 2)],
    }])
    .unwrap();
    let report = conformance::distribution("softmax", &IndependentSoftmax::new(&spec, 0.1), &spec);
    report.ok().unwrap();
    assert_eq!(report.held().len(), 6, "{report}");
}
