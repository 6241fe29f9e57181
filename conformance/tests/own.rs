//! The suite on the framework's own distributions, and on a plugin that breaks the rule of names.
#![allow(clippy::unwrap_used, missing_docs)]

use nasfw_conformance as conformance;
use nasfw_framework::arch::{ArchSpec, Group, Role, Row};
use nasfw_framework::distribution::{Dirichlet, GumbelSoftmax, Relaxation};
use nasfw_framework::registry::{Parse, Plugin, parse_section};
use nasfw_framework::space::{SearchSpace, SpaceConfig};
use nasfw_framework::{Error, Result};
use serde::{Deserialize, Serialize};

fn row(candidates: usize, keep: usize) -> Row {
    Row {
        name: format!("{candidates} {keep}"),
        candidates: (0..candidates).map(|c| c.to_string()).collect(),
        keep,
    }
}

fn group(name: &str, role: Role, rows: Vec<Row>) -> Group {
    Group {
        name: name.into(),
        role,
        rows,
        edges: None,
    }
}

#[test]
fn dirichlet_is_a_distribution_over_architectures() {
    let rows = vec![row(3, 1), row(2, 1)];
    let spec = ArchSpec::new(vec![group("ops", Role::Operations, rows)]).unwrap();
    let report = conformance::distribution("dirichlet", &Dirichlet::new(&spec, 1.0), &spec);
    report.ok().unwrap();
    assert_eq!(report.held().len(), 4, "{report}");
}

/// Ragged operations, and topology that keeps two.
#[test]
fn gumbel_is_a_distribution_over_architectures() {
    let spec = ArchSpec::new(vec![
        group("ops", Role::Operations, vec![row(3, 1), row(2, 1)]),
        group("inputs", Role::Topology, vec![row(4, 2)]),
    ])
    .unwrap();
    for relaxation in [Relaxation::Soft, Relaxation::Hard] {
        let mut d = GumbelSoftmax::new(&spec, 1.0, 0.5);
        (d.operations, d.topology) = (relaxation, relaxation);
        let report = conformance::distribution("gumbel", &d, &spec);
        report.ok().unwrap();
        assert_eq!(report.held().len(), 7, "{report}");
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Renamed {}

#[typetag::serde(name = "old-name")]
impl SpaceConfig for Renamed {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        Err(Error::Registry("never built".into()))
    }
}

#[test]
fn settings_that_are_kept_under_another_name_break_a_rule() {
    let report = |name| {
        conformance::plugin(&Plugin {
            name,
            summary: "",
            source: "",
            defaults: "",
            presets: &[],
            families: &[],
            example: "",
            spaces: &[],
            parse: Parse::Space(|v| parse_section::<Renamed>(v).map(|c| Box::new(c) as _)),
            crate_name: "a",
            crate_version: "1.0.0",
            file: "lib.rs",
        })
    };
    let broken = report("new-name");
    let names: Vec<&str> = broken.broken().iter().map(|f| f.invariant).collect();
    assert!(names.contains(&"typetag-name"), "{broken}");
    let twin = report("old-name");
    let held = twin.held().iter().any(|f| f.invariant == "typetag-name");
    assert!(held, "{twin}");
}
