//! A search space written in Python: its supernet, and the networks of its architectures, are `torch.nn.Module`s.

use std::collections::BTreeMap;

use nasfw_framework::arch::{ArchSpec, Cell, Choice, Edge, Genotype, Group, Node, RelaxedArch};
use nasfw_framework::config::{ConfigError, Validator};
use nasfw_framework::network::{LossOptions, Network, NetworkOptions};
use nasfw_framework::params::{Init, ParamLayout};
use nasfw_framework::ranks;
use nasfw_framework::registry::{Kind as PluginKind, Parse, announce};
use nasfw_framework::rng::Streams;
use nasfw_framework::space::{SearchSpace, SpaceConfig, Task};
use nasfw_framework::supernet::{
    DROP_PATH, Mode, SKIP_DROPOUT, Supernet, SupernetOptions, Weights,
};
use nasfw_framework::{Error, Result};
use pyo3::prelude::*;
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::{Device, Kind, Reduction, Tensor, no_grad};

use crate::errors::inward;
use crate::options::{About, Kept};
use crate::plain;
use crate::tensor::{Shared, out};

/// Python's part of the border.
const SPACES: &str = "nasfw._space";

/// What a run keeps of a space in Python.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PythonSpaceConfig(Kept);

#[typetag::serde(name = "python")]
impl SpaceConfig for PythonSpaceConfig {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let made = Python::attach(|py| -> PyResult<_> {
            let object = self.0.make(py)?;
            let groups = py.import(SPACES)?.call_method1("groups_of", (&object,))?;
            let recipe = py.import(SPACES)?.call_method1("recipe_of", (&object,))?;
            Ok((
                plain::from_python(&groups)?,
                recipe.extract::<String>()?,
                object.unbind(),
            ))
        });
        let (groups, recipe, object) = made.map_err(|e| inward(&self.0.plugin, e))?;
        let groups: Vec<Group> = serde_json::from_value(groups).map_err(|e| Error::Plugin {
            plugin: self.0.plugin.clone(),
            message: format!("groups: {e}"),
        })?;
        Ok(Box::new(PythonSpace {
            name: self.0.plugin.clone(),
            spec: ArchSpec::new(groups)?,
            recipe,
            object,
        }))
    }

    fn name(&self) -> &str {
        &self.0.plugin
    }

    fn validate(&self, v: &mut Validator) {
        self.0.validate("space", v);
    }
}

struct PythonSpace {
    name: String,
    spec: ArchSpec,
    recipe: String,
    object: Py<PyAny>,
}

impl PythonSpace {
    /// A module that a function of Python's part makes, as a function of its weights.
    fn net(&self, function: &str, task: Task, arguments: &Value, loss: LossOptions) -> Result<Net> {
        type Parts = Vec<(String, Vec<i64>)>;
        let made = Python::attach(|py| -> PyResult<_> {
            let task = (task.channels, task.height, task.width, task.classes);
            let arguments = (&self.object, task, plain::to_python(py, arguments)?);
            let made = py.import(SPACES)?.call_method1(function, arguments)?;
            let params: Parts = made.getattr("params")?.extract()?;
            let stats: Parts = made.getattr("stats")?.extract()?;
            let single: bool = self.object.getattr(py, "takes_one_image")?.extract(py)?;
            Ok((params, stats, single, made.unbind()))
        });
        let (params, stats, takes_one_image, module) = made.map_err(|e| inward(&self.name, e))?;
        // What they start with is the module's to say.
        let layout = |parts: Parts| {
            let mut layout = ParamLayout::new();
            for (name, shape) in parts {
                layout.add(name, &shape, Init::Zeros);
            }
            layout
        };
        Ok(Net {
            name: self.name.clone(),
            params: layout(params),
            stats: layout(stats),
            takes_one_image,
            label_smoothing: loss.label_smoothing,
            module,
        })
    }
}

impl SearchSpace for PythonSpace {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        options.check(&self.spec)?;
        let asked = serde_json::to_value(options).unwrap_or_default();
        let net = self.net("supernet_of", task, &asked, LossOptions::default())?;
        Ok(Box::new(net))
    }

    /// One cell a group. A row is a node behind the one before it, or an edge where the group has some.
    fn genotype(&self, choice: &Choice) -> Genotype {
        let cell = |(g, group): (usize, &Group)| {
            let plan = Plan::of(group);
            let mut nodes = vec![vec![]; plan.nodes];
            for (r, row) in group.rows.iter().enumerate() {
                let (from, node) = plan.ends[r];
                nodes[node].extend(choice.kept(g, r).iter().map(|&c| Edge {
                    from,
                    op: Some(row.candidates[c].clone()),
                }));
            }
            Cell {
                name: group.name.clone(),
                inputs: plan.inputs(),
                nodes: (nodes.into_iter())
                    .map(|inputs| Node { op: None, inputs })
                    .collect(),
                output: plan.output,
            }
        };
        Genotype {
            space: self.name.clone(),
            cells: self.spec.groups().iter().enumerate().map(cell).collect(),
        }
    }

    fn choice(&self, genotype: &Genotype) -> Result<Choice> {
        let invalid = |why: String| Error::Invalid {
            what: format!("genotype of {}", self.name),
            why,
        };
        let groups = self.spec.groups();
        if genotype.cells.len() != groups.len() {
            return Err(invalid(format!(
                "it has {} cells in the place of {}",
                genotype.cells.len(),
                groups.len()
            )));
        }
        let mut kept = vec![];
        for (group, cell) in groups.iter().zip(&genotype.cells) {
            let plan = Plan::of(group);
            // Edges into each node, in the order of rows.
            let mut edges: Vec<_> = cell.nodes.iter().map(|n| n.inputs.iter()).collect();
            let mut rows = vec![];
            for (row, (from, node)) in group.rows.iter().zip(&plan.ends) {
                let edges = edges.get_mut(*node).into_iter().flatten().take(row.keep);
                let columns = edges.map(|e| match e.op.as_deref() {
                    Some(op) if e.from == *from => row.column(op),
                    _ => None,
                });
                let mut columns: Vec<usize> = columns.collect::<Option<_>>().ok_or_else(|| {
                    invalid(format!(
                        "cell `{}` has something in row `{}` that is no candidate there",
                        group.name, row.name
                    ))
                })?;
                columns.sort_unstable();
                rows.push(columns);
            }
            if edges.into_iter().flatten().next().is_some() {
                return Err(invalid(format!("cell `{}` has too many edges", group.name)));
            }
            kept.push(rows);
        }
        let choice = Choice::new(kept);
        choice.check_complete(&self.spec)?;
        match self.genotype(&choice) == *genotype {
            true => Ok(choice),
            false => Err(invalid("its cells are others".into())),
        }
    }

    fn network(&self, _: &Genotype, _: Task, _: &NetworkOptions) -> Result<Network> {
        Err(Error::Incompatible {
            what: format!("a list of operations of a network of space `{}`", self.name),
            why: "its networks are modules of Python, written by hand".into(),
            help:
                "`nasfw.network(RUN)` in Python gives the module of a trained run, with its weights"
                    .into(),
        })
    }

    fn alone(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
        loss: LossOptions,
    ) -> Result<Box<dyn Supernet>> {
        if options.auxiliary || loss.auxiliary > 0.0 {
            return Err(Error::Incompatible {
                what: format!("an auxiliary classifier on space `{}`", self.name),
                why: "its networks, modules of Python, have one output".into(),
                help: "leave it out: `--set space.auxiliary=0`".into(),
            });
        }
        let kept = self.choice(genotype)?;
        let arguments = json!({
            "kept": kept.groups(),
            "channels": options.channels,
            "cells": options.cells,
        });
        Ok(Box::new(self.net("network_of", task, &arguments, loss)?))
    }

    fn recipe(&self) -> &str {
        &self.recipe
    }
}

/// Where the rows of a group are in the cell that a genotype draws.
struct Plan {
    /// Per row the state that it reads, and the node that it leads into.
    ends: Vec<(usize, usize)>,
    nodes: usize,
    /// States that are the cell's inputs.
    given: usize,
    output: Vec<usize>,
}

impl Plan {
    fn of(group: &Group) -> Self {
        let Some(edges) = &group.edges else {
            let rows = group.rows.len();
            return Self {
                ends: (0..rows).map(|r| (r, r)).collect(),
                nodes: rows,
                given: 1,
                output: vec![rows],
            };
        };
        let ends = || edges.ends.iter();
        let given = ends().map(|e| e.1).min().unwrap_or(0);
        let states = ends().map(|e| e.1 + 1).max().unwrap_or(0);
        Self {
            ends: ends().map(|&(from, to)| (from, to - given)).collect(),
            nodes: states - given,
            given,
            // Whatever no edge reads.
            output: (given..states)
                .filter(|s| ends().all(|e| e.0 != *s))
                .collect(),
        }
    }

    fn inputs(&self) -> Vec<String> {
        match self.given {
            1 => vec!["input".into()],
            n => (0..n).map(|i| format!("input {i}")).collect(),
        }
    }
}

/// A module as a function of its weights.
struct Net {
    name: String,
    params: ParamLayout,
    stats: ParamLayout,
    takes_one_image: bool,
    label_smoothing: f64,
    /// `nasfw._space.Functional`
    module: Py<PyAny>,
}

impl Net {
    /// What a fresh module starts with.
    fn start(&self, what: &str, streams: Streams, kind: Kind, device: Device) -> Result<Tensor> {
        let seed = streams.at("module", 0).next_u64() >> 1;
        let start = Python::attach(|py| {
            let flat = self.module.call_method1(py, what, (seed,))?;
            flat.extract::<Shared>(py)
        });
        let start = start.map_err(|e| inward(&self.name, e))?;
        Ok(start.0.to_kind(kind).to_device(device))
    }
}

impl Supernet for Net {
    fn layout(&self) -> &ParamLayout {
        &self.params
    }

    fn stats_layout(&self) -> ParamLayout {
        self.stats.clone()
    }

    fn init(&self, streams: Streams, kind: Kind, device: Device) -> Result<Tensor> {
        self.start("start", streams, kind, device)
    }

    fn init_stats(&self, streams: Streams, kind: Kind, device: Device) -> Result<Tensor> {
        self.start("start_stats", streams, kind, device)
    }

    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        mode: Mode,
        noise: Streams,
    ) -> Result<Tensor> {
        if mode == Mode::Train && ranks::is_synchronised() {
            return Err(Error::Incompatible {
                what: format!("`trainer.sync_batch_norm` on space `{}`", self.name),
                why: "what a module in Python normalises by is its own".into(),
                help: "leave it out: every process then normalises by its part of a batch".into(),
            });
        }
        let views = |layout: &ParamLayout, flat: &Tensor| out(layout.named(flat).map(|(_, t)| t));
        let params = views(&self.params, weights.params);
        let stats = no_grad(|| views(&self.stats, weights.stats));
        let matrices = out(arch.weights.iter().map(Tensor::shallow_clone));
        let offsets = arch.offsets.as_ref();
        let offsets = offsets.map(|o| out(o.iter().map(Tensor::shallow_clone)));
        let seed = noise.at("module", 0).next_u64() >> 1;
        let train = mode == Mode::Train;
        // Nothing is dropped where nothing is trained.
        let applies = |name: &str| train || ![DROP_PATH, SKIP_DROPOUT].contains(&name);
        let scalars = arch.scalars.iter().filter(|(name, _)| applies(name));
        let scalars: BTreeMap<&str, f64> = scalars.map(|(name, x)| (name.as_str(), *x)).collect();
        let output = Python::attach(|py| {
            let images = Shared(images.shallow_clone());
            let arch = (matrices, arch.active.as_ref(), offsets, scalars);
            let arguments = (params, stats, images, arch, train, seed);
            let output = self.module.call_method1(py, "forward", arguments)?;
            output.extract::<Shared>(py)
        });
        output.map(|t| t.0).map_err(|e| inward(&self.name, e))
    }

    fn takes_one_image(&self) -> bool {
        self.takes_one_image
    }

    fn loss(&self, output: &Tensor, labels: &Tensor) -> Tensor {
        let smoothing = self.label_smoothing;
        output.cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, smoothing)
    }
}

fn parse(section: &Value) -> Result<Box<dyn SpaceConfig>, ConfigError> {
    Ok(Box::new(PythonSpaceConfig(Kept::of(
        PluginKind::Space,
        section,
    )?)))
}

/// Adds a space of Python to the registry.
#[pyfunction]
pub fn announce_space(class: &str, about: About) {
    announce(about.plugin(PluginKind::Space, class, Parse::Space(parse)));
}
