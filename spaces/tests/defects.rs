//! Planted defects that the conformance suite must reject; without its defect each double is accepted.
#![allow(clippy::unwrap_used, missing_docs)]

use nasfw_framework::conformance::{self, Report};
use nasfw_framework::distribution::IndependentSoftmax;
use nasfw_framework::prelude::*;
use tch::Tensor;

fn spec() -> ArchSpec {
    let row = |name: &str, n: usize, keep| Row {
        name: name.into(),
        candidates: (0..n).map(|i| format!("c{i}")).collect(),
        keep,
    };
    let rows = vec![row("a", 3, 1), row("b", 4, 2)];
    let (name, role) = ("g".into(), Role::Operations);
    ArchSpec::new(vec![Group { name, role, rows }]).unwrap()
}

fn rejects(report: &Report, invariant: &str) {
    let broken = report.broken();
    assert!(broken.iter().any(|f| f.invariant == invariant), "{report}");
}

#[derive(PartialEq)]
enum Defect {
    None,
    Genotype,
    Derive,
    Random,
}

struct Double(ArchSpec, Defect);

impl SearchSpace for Double {
    fn spec(&self) -> &ArchSpec {
        &self.0
    }

    fn supernet(&self, _: Task, _: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        Err(Error::Registry("none".into()))
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        let shift = usize::from(self.1 == Defect::Genotype);
        let node = |kept: &Vec<usize>| Node {
            op: None,
            inputs: kept
                .iter()
                .map(|c| Edge {
                    from: 0,
                    op: Some(format!("c{}", c / (1 + shift))),
                })
                .collect(),
        };
        Genotype {
            space: "double".into(),
            cells: vec![Cell {
                name: "g".into(),
                inputs: vec!["in".into()],
                nodes: choice.groups()[0].iter().map(node).collect(),
                output: vec![2],
            }],
        }
    }

    fn derive(&self, marginals: &Marginals) -> Choice {
        let mut marginals = marginals.clone();
        if self.1 == Defect::Derive {
            marginals[0][1][3] = 0.0;
        }
        self.0.top(&marginals)
    }

    fn random(&self, rng: &mut Rng) -> Choice {
        let first = self.0.uniform(rng);
        if self.1 == Defect::Random {
            return first.min(self.0.uniform(rng));
        }
        first
    }
}

#[test]
fn defects_of_spaces_are_rejected() {
    let report = |defect| conformance::space("double", &Double(spec(), defect));
    report(Defect::None).ok().unwrap();
    rejects(&report(Defect::Genotype), "genotype-round-trip");
    rejects(&report(Defect::Derive), "derive-is-brute-force");
    rejects(&report(Defect::Random), "random-is-uniform");
}

/// The softmax with a score function of the wrong sign, or draws that do not follow.
struct Softmax(IndependentSoftmax, bool, bool);

impl ArchDistribution for Softmax {
    fn layout(&self) -> &ParamLayout {
        self.0.layout()
    }

    fn sample(&self, phi: &Tensor, rng: &mut Rng) -> Result<RelaxedArch> {
        self.0.sample(phi, rng)
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        self.0.mean(phi)
    }

    fn log_prob(&self, phi: &Tensor, choice: &Choice) -> Result<Option<Tensor>> {
        let right = self.0.log_prob(phi, choice)?;
        Ok(right.map(|p| if self.1 { p.detach() * 2.0 - p } else { p }))
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Option<Choice>> {
        let phi = if self.2 {
            phi * 0.5
        } else {
            phi.shallow_clone()
        };
        self.0.draw(&phi, rng)
    }
}

#[test]
fn defects_of_distributions_are_rejected() {
    let report = |sign, draws| {
        let inner = IndependentSoftmax::new(&spec(), 0.1);
        conformance::distribution("double", &Softmax(inner, sign, draws), &spec())
    };
    report(false, false).ok().unwrap();
    rejects(&report(true, false), "score-function-is-exact");
    rejects(&report(false, true), "draw-follows-log-prob");
}
