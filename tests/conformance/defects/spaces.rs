//! Spaces, supernets, distributions and descriptors with one defect each; without it each double is accepted.

use std::sync::atomic::{AtomicUsize, Ordering};

use nasfw_conformance::{self as conformance, Report};
use nasfw_framework::distribution::has_none;
use nasfw_framework::prelude::*;
use nasfw_framework::registry::{Kind as Plugins, Registry};
use nasfw_framework::{observe, register};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::Tensor;

fn spec() -> ArchSpec {
    let row = |name: &str, n: usize, keep| Row {
        name: name.into(),
        candidates: (0..n).map(|i| format!("c{i}")).collect(),
        keep,
    };
    let rows = vec![row("a", 3, 1), row("b", 4, 2)];
    let (name, role) = ("g".into(), Role::Operations);
    ArchSpec::new(vec![Group {
        name,
        role,
        rows,
        edges: None,
    }])
    .unwrap()
}

fn rejects(report: &Report, invariant: &str) {
    let broken = report.broken();
    assert!(broken.iter().any(|f| f.invariant == invariant), "{report}");
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Defect {
    #[default]
    None,
    Genotype,
    Derive,
    Random,
    /// The supernet keeps a running mean in its weights.
    WritesWeights,
    /// Only the last image of a batch has a gradient.
    LastImage,
    /// A masked candidate counts as an identity.
    IgnoresMask,
    /// The gradient of an architecture weight stops at the first candidate.
    CutsGradient,
    /// Outputs are those of the image before.
    MixesImages,
    /// The options of a strategy are taken and forgotten.
    ForgetsOptions,
    /// Offsets of rows are passed over.
    ForgetsOffsets,
    /// All candidates are told under one name.
    TellsOneName,
    /// Candidates are told at their neighbours' places.
    TellsElsewhere,
    /// Candidates are told in the order of a set that begins anew somewhere else in every pass.
    TellsInDisorder,
    /// What is told is not what goes on.
    TellsCopies,
    /// Weights for cells are taken and forgotten.
    ForgetsCells,
    /// The weights of a candidate are said to be its neighbour's.
    OwnsNeighbours,
    /// Half of a candidate's weights are left out.
    OwnsHalf,
    /// The loss is a sum over images.
    SumsImages,
    /// The scale of the images is declared and never read.
    IdleOption,
}

struct Double(ArchSpec, Defect, f64);

impl SearchSpace for Double {
    fn spec(&self) -> &ArchSpec {
        &self.0
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        if *options != SupernetOptions::default() && self.1 != Defect::ForgetsOptions {
            return Err(Error::Registry("this space has no such option".into()));
        }
        let mut layout = ParamLayout::new();
        let features = task.channels * task.height * task.width;
        let shape = [7, task.classes, features];
        let maps = layout.add("maps", &shape, Init::fan_in(features));
        let scale = if self.1 == Defect::IdleOption {
            1.0
        } else {
            self.2
        };
        Ok(Box::new(Net(layout, maps, self.1, scale)))
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

/// Rows and columns of the candidates.
const CANDIDATES: [(usize, usize); 7] = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)];

/// Forward passes so far, of all supernets.
static PASSES: AtomicUsize = AtomicUsize::new(0);

/// A sum of linear maps, one for each of the seven candidates, weighted and bent.
struct Net(ParamLayout, ParamId, Defect, f64);

impl Supernet for Net {
    fn layout(&self) -> &ParamLayout {
        &self.0
    }

    fn cells(&self) -> usize {
        1
    }

    fn own_weights(&self) -> Vec<OwnWeights> {
        let own = |(i, (row, column))| {
            let mut stretch = self.0.stretch(self.1, i, 7);
            if self.2 == Defect::OwnsNeighbours {
                stretch.first = (stretch.first + 12) % 84;
            }
            if self.2 == Defect::OwnsHalf {
                stretch.shape[1] = 2;
            }
            OwnWeights {
                cell: 0,
                group: 0,
                row,
                column,
                stretches: vec![stretch],
            }
        };
        (0..).zip(CANDIDATES).map(own).collect()
    }

    fn loss(&self, output: &Tensor, labels: &Tensor) -> Tensor {
        let reduction = tch::Reduction::Mean;
        let mean = output.cross_entropy_loss::<Tensor>(labels, None, reduction, -100, 0.0);
        match self.2 {
            Defect::SumsImages => mean * labels.numel() as f64,
            _ => mean,
        }
    }

    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        _mode: Mode,
        _noise: Streams,
    ) -> Result<Tensor> {
        let arch = &match self.2 {
            Defect::ForgetsCells => arch.shallow_clone(),
            _ => arch.of_cell(0),
        };
        let pass = PASSES.fetch_add(1, Ordering::Relaxed);
        let maps = &self.0.views(weights.params)[self.1];
        let mut x = images.flatten(1, -1) * self.3;
        if self.2 == Defect::MixesImages {
            x = x.roll([1], [0]) * 0.5 + x.cumsum(0, x.kind()) * 0.5;
        }
        if self.2 == Defect::WritesWeights {
            tch::no_grad(|| {
                let mut params = weights.params.shallow_clone();
                params *= 0.999;
            });
        }
        let mut sum = Tensor::zeros([x.size()[0], maps.size()[1]], (x.kind(), x.device()));
        for (i, (row, column)) in CANDIDATES.into_iter().enumerate() {
            let mut y = x.matmul(&maps.get(i as i64).tr()).tanh();
            if !arch.is_active(0, row, column) {
                if self.2 == Defect::IgnoresMask {
                    sum += y;
                }
                continue;
            }
            let told = observe::candidate(&y, || {
                let name = match self.2 {
                    Defect::TellsOneName => "candidate".into(),
                    Defect::TellsInDisorder => format!("candidate {}", (i + pass) % 7),
                    _ => format!("candidate {i}"),
                };
                let column = match self.2 {
                    Defect::TellsElsewhere => (column + 1) % 3,
                    _ => column,
                };
                let (cell, group) = (0, 0);
                let place = Place::Candidate {
                    cell,
                    group,
                    row,
                    column,
                };
                (name, place)
            });
            if self.2 != Defect::TellsCopies {
                y = told;
            }
            let mut a = arch.weights[0].get(row as i64).get(column as i64);
            if self.2 == Defect::CutsGradient && i > 0 {
                a = a.detach();
            }
            sum += y * a;
        }
        if let Some(offsets) = arch
            .offsets
            .as_ref()
            .filter(|_| self.2 != Defect::ForgetsOffsets)
        {
            sum += offsets[0].sum(x.kind());
        }
        if self.2 == Defect::LastImage {
            let n = sum.size()[0] - 1;
            sum = Tensor::cat(&[sum.narrow(0, 0, n).detach(), sum.narrow(0, n, 1)], 0);
        }
        Ok(sum)
    }
}

const TASK: Task = Task {
    channels: 1,
    height: 2,
    width: 2,
    classes: 3,
};

#[test]
fn defects_of_spaces_are_rejected() {
    let report = |defect| conformance::space("double", &Double(spec(), defect, 1.0), TASK);
    report(Defect::None).ok().unwrap();
    rejects(&report(Defect::Genotype), "genotype-round-trip");
    rejects(&report(Defect::Derive), "derive-is-brute-force");
    rejects(&report(Defect::Random), "random-is-uniform");
}

#[test]
fn defects_of_supernets_are_rejected() {
    let report = |defect| {
        let space = Double(spec(), defect, 1.0);
        let net = space.supernet(TASK, &SupernetOptions::default()).unwrap();
        conformance::supernet("double", &space, net.as_ref(), TASK)
    };
    let twin = report(Defect::None);
    twin.ok().unwrap();
    assert_eq!(twin.held().len(), twin.findings.len(), "{twin}");
    rejects(&report(Defect::WritesWeights), "forward-is-pure");
    rejects(&report(Defect::LastImage), "micro-batches-sum");
    rejects(&report(Defect::LastImage), "gradient-is-finite-difference");
    rejects(
        &report(Defect::IgnoresMask),
        "masked-candidates-do-not-matter",
    );
    rejects(
        &report(Defect::CutsGradient),
        "gradient-is-finite-difference",
    );
    rejects(&report(Defect::MixesImages), "batch-order");
    for defect in [
        Defect::TellsOneName,
        Defect::TellsElsewhere,
        Defect::TellsInDisorder,
        Defect::TellsCopies,
    ] {
        rejects(&report(defect), "told-values-add-up");
    }
    rejects(&report(Defect::ForgetsCells), "cells-add-up");
    rejects(&report(Defect::OwnsNeighbours), "own-weights-are-own");
    rejects(&report(Defect::OwnsHalf), "own-weights-are-own");
    rejects(&report(Defect::SumsImages), "images-add-up");
    rejects(&report(Defect::ForgetsOptions), "options-used-or-refused");
    rejects(
        &report(Defect::ForgetsOffsets),
        "architecture-used-or-refused",
    );
}

/// Settings of the double; unknown keys are taken and dropped: a defect of its own.
#[derive(Debug, Serialize, Deserialize)]
struct DoubleConfig {
    scale: f64,
    #[serde(default)]
    defect: Defect,
}

register! {
    space "double-space" => DoubleConfig,
    summary: "a double",
    source: "tests",
    defaults: "[space]\n# Factor of the images.\nscale = 1.0\n",
    example: "nasfw run --space double-space",
    presets: &[("misspelt", "[space]\nscale = \"large\"\n")],
}

#[typetag::serde(name = "double-space")]
impl SpaceConfig for DoubleConfig {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        Ok(Box::new(Double(spec(), self.defect, self.scale)))
    }
}

#[test]
fn defects_of_descriptors_and_options_are_rejected() {
    let registry = Registry::load().unwrap();
    let plugin = registry.get(Plugins::Space, "double-space").unwrap();
    let descriptor = conformance::plugin(plugin);
    rejects(&descriptor, "unknown-key-is-refused");
    rejects(&descriptor, "presets-are-valid");
    let options = |defect| {
        let section = crate::strategies::section(plugin, &[("defect", json!(defect))]);
        conformance::space_options(plugin, &section, TASK)
    };
    options(Defect::None).ok().unwrap();
    rejects(&options(Defect::IdleOption), "options-matter");
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

    fn log_prob(&self, phi: &Tensor, choice: &Choice) -> Result<Tensor> {
        let right = self.0.log_prob(phi, choice)?;
        Ok(match self.1 {
            true => right.detach() * 2.0 - right,
            false => right,
        })
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Choice> {
        let phi = if self.2 {
            phi * 0.5
        } else {
            phi.shallow_clone()
        };
        self.0.draw(&phi, rng)
    }
}

/// The softmax, of which only draws are there, or nothing at all.
struct Draws(IndependentSoftmax, bool);

impl ArchDistribution for Draws {
    fn layout(&self) -> &ParamLayout {
        self.0.layout()
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        self.0.mean(phi)
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Choice> {
        match self.1 {
            true => self.0.draw(phi, rng),
            false => Err(has_none("discrete draws")),
        }
    }
}

#[test]
fn a_distribution_may_only_draw_but_must_do_something() {
    let report = |draws| {
        let double = Draws(IndependentSoftmax::new(&spec(), 0.1), draws);
        conformance::distribution("double", &double, &spec())
    };
    report(true).ok().unwrap();
    rejects(&report(false), "gives-architectures");
    let double = Draws(IndependentSoftmax::new(&spec(), 0.1), true);
    let phi = Tensor::zeros([7], (tch::Kind::Double, tch::Device::Cpu));
    let error = double.sample(&phi, &mut Streams::new(0).at("none", 0));
    let message = error.unwrap_err().to_string();
    assert_eq!(message, "this distribution has no relaxed samples");
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
