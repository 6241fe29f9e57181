//! A correct space in a wrapper that keeps something from its supernets: one option that a strategy asks for, or one part of
//! the architectures that it puts through. Whatever is kept back must be noticed.

use nasfw_conformance::{self as conformance, Report};
use nasfw_framework::prelude::*;
use nasfw_framework::registry::{Kind as Plugins, Parse, Registry};
use nasfw_framework::supernet::BatchNormStats;
use serde_json::json;
use tch::Tensor;

use crate::strategies::section;

const TASK: Task = Task {
    channels: 1,
    height: 8,
    width: 8,
    classes: 3,
};

/// What is kept back, or done though nobody asked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Defect {
    None,
    Channels,
    Cells,
    Allowed,
    /// Candidates of the last row that lacks one exist all the same.
    AllowedOfTheLastRow,
    PartialChannels,
    AuxiliarySkip,
    SkipDropout,
    DropPath,
    BatchNorm,
    Plain,
    /// Rates drop where nothing is trained, too.
    DropsInEvaluation,
    /// Every pass drops the same.
    OneNoise,
    /// Drop path whether asked for or not.
    DropsUnasked,
    /// Running statistics are read and never written.
    FrozenStatistics,
    Offsets,
    OffsetsOfTheLastRow,
    OffsetsOfValueOnly,
    Masks,
}

struct Space(Box<dyn SearchSpace>, Defect);

impl SearchSpace for Space {
    fn spec(&self) -> &ArchSpec {
        self.0.spec()
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        let (mut o, none) = (options.clone(), SupernetOptions::default());
        match self.1 {
            Defect::Channels => o.channels = none.channels,
            Defect::Cells => o.cells = none.cells,
            Defect::Allowed => o.allowed = none.allowed,
            Defect::AllowedOfTheLastRow => {
                let mut rows = o.allowed.iter_mut().flatten().flatten().rev();
                if let Some(row) = rows.find(|row| row.contains(&false)) {
                    row.fill(true);
                }
            }
            Defect::PartialChannels => o.partial_channels = none.partial_channels,
            Defect::AuxiliarySkip => o.auxiliary_skip = none.auxiliary_skip,
            Defect::SkipDropout => o.skip_dropout = none.skip_dropout,
            Defect::DropPath => o.drop_path = none.drop_path,
            Defect::DropsUnasked => o.drop_path = true,
            Defect::BatchNorm => o.batch_norm = none.batch_norm,
            Defect::Plain => o.plain = none.plain,
            _ => {}
        }
        Ok(Box::new(Net(self.0.supernet(task, &o)?, self.1)))
    }

    fn without_effect(&self) -> Vec<&'static str> {
        self.0.without_effect()
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        self.0.genotype(choice)
    }

    fn random(&self, rng: &mut Rng) -> Choice {
        self.0.random(rng)
    }
}

struct Net(Box<dyn Supernet>, Defect);

impl Supernet for Net {
    fn layout(&self) -> &ParamLayout {
        self.0.layout()
    }

    fn stats_layout(&self) -> ParamLayout {
        self.0.stats_layout()
    }

    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        mode: Mode,
        noise: Streams,
    ) -> Result<Tensor> {
        let mut same = arch.with_weights(arch.weights.iter().map(Tensor::shallow_clone).collect());
        let (mut mode, mut noise) = (mode, noise);
        let stats = weights.stats.copy();
        let mut weights = weights;
        match self.1 {
            Defect::Offsets => same.offsets = None,
            Defect::OffsetsOfTheLastRow => {
                for offsets in same.offsets.iter_mut().flatten() {
                    let n = offsets.size()[0];
                    *offsets = Tensor::cat(
                        &[
                            offsets.narrow(0, 0, n - 1),
                            offsets.narrow(0, 0, 1).zeros_like(),
                        ],
                        0,
                    );
                }
            }
            Defect::OffsetsOfValueOnly => {
                same.offsets
                    .iter_mut()
                    .flatten()
                    .for_each(|o| *o = o.detach());
            }
            Defect::Masks => same.active = None,
            Defect::DropsInEvaluation => mode = Mode::Train,
            Defect::OneNoise => noise = Streams::new(1),
            Defect::FrozenStatistics => weights.stats = &stats,
            _ => {}
        }
        self.0.forward(weights, images, &same, mode, noise)
    }
}

fn space(name: &str, defect: Defect) -> Space {
    let plugin = Registry::load().unwrap().get(Plugins::Space, name).unwrap();
    let Parse::Space(parse) = plugin.parse else {
        panic!("a space");
    };
    let mut small = section(plugin, &[("channels", json!(4))]);
    if small.get("cells").is_some() {
        small["cells"] = json!(1);
    }
    Space(parse(&small).unwrap().build().unwrap(), defect)
}

fn report(name: &str, defect: Defect, options: &SupernetOptions) -> Report {
    tch::set_num_threads(1);
    let space = space(name, defect);
    let net = space.supernet(TASK, options).unwrap();
    conformance::supernet(name, &space, net.as_ref(), TASK)
}

#[test]
fn whatever_a_supernet_is_not_told_is_noticed() {
    let none = SupernetOptions::default();
    report("toy-conv", Defect::None, &none).ok().unwrap();
    report("nasbench201", Defect::None, &none).ok().unwrap();
    let options = [
        Defect::Channels,
        Defect::Allowed,
        Defect::AllowedOfTheLastRow,
        Defect::PartialChannels,
        Defect::AuxiliarySkip,
        Defect::SkipDropout,
        Defect::DropPath,
        Defect::BatchNorm,
        Defect::DropsInEvaluation,
        Defect::OneNoise,
        Defect::FrozenStatistics,
    ]
    .map(|d| ("toy-conv", d, "options-used-or-refused"));
    // Those of a network of many cells with kernels of its own.
    let others =
        [Defect::Cells, Defect::Plain].map(|d| ("nasbench201", d, "options-used-or-refused"));
    let architectures = [
        Defect::Offsets,
        Defect::OffsetsOfTheLastRow,
        Defect::OffsetsOfValueOnly,
        Defect::Masks,
        Defect::DropsUnasked,
    ]
    .map(|d| ("toy-conv", d, "architecture-used-or-refused"));
    let mut missed = vec![];
    for (name, defect, invariant) in options.into_iter().chain(others).chain(architectures) {
        let report = report(name, defect, &none);
        println!("{defect:?} {report}");
        if !report.broken().iter().any(|f| f.invariant == invariant) {
            missed.push(format!("{defect:?}"));
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

/// A report on a network says the same of what options do, whatever that network was built with.
#[test]
fn the_report_on_a_supernet_with_options_does_not_mislead() {
    let asked = [
        SupernetOptions {
            partial_channels: Some(2),
            ..Default::default()
        },
        SupernetOptions {
            drop_path: true,
            auxiliary_skip: true,
            batch_norm: BatchNormStats::Running,
            ..Default::default()
        },
        SupernetOptions {
            channels: Some(6),
            plain: true,
            ..Default::default()
        },
    ];
    for options in asked {
        report("toy-conv", Defect::None, &options).ok().unwrap();
        let wrong = report("toy-conv", Defect::SkipDropout, &options);
        let broken: Vec<&str> = wrong.broken().iter().map(|f| f.invariant).collect();
        assert_eq!(broken, ["options-used-or-refused"], "{options:?} {wrong}");
    }
}
