//! The problem that strategies are checked on: small enough for exact answers, with every kind of decision.

mod net;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Tensor;

use nasfw_framework::arch::{ArchSpec, Cell, Choice, Edge, Genotype, Group, Node, Role, Row};
use nasfw_framework::batches::Augment;
use nasfw_framework::benchmark::{Benchmark, BenchmarkConfig, Provenance, Score};
use nasfw_framework::config::Precision;
use nasfw_framework::dataset::{DataSource, Dataset, ImageData, Part};
use nasfw_framework::network::{Network, NetworkBuilder, NetworkOptions};
use nasfw_framework::registry::{Kind, Registry, parse_section};
use nasfw_framework::rng::Streams;
use nasfw_framework::space::{SearchSpace, SpaceConfig, Task};
use nasfw_framework::supernet::{Supernet, SupernetOptions};
use nasfw_framework::trainer::SearchTrainer;
use nasfw_framework::{Error, Result};
use net::ProbeNet;

/// What a strategy is checked on: a space, images, a trainer's settings.
#[derive(Debug, Clone)]
pub struct Problem {
    pub(super) space: Value,
    pub(super) dataset: Value,
    pub(super) benchmark: Option<Value>,
    pub(super) trainer: SearchTrainer,
    pub(super) precision: Precision,
    /// The same space with rows and candidates in another order, where there is one.
    pub(super) relabelled: Option<Value>,
}

impl Problem {
    /// The suite's own problem: two groups of operations and one of topology, a network that is linear in its weights
    /// and in the architecture, squared errors, a benchmark with two metrics, two short epochs.
    ///
    /// # Errors
    /// None that a user could cause: the trainer's own defaults are read.
    pub fn built_in() -> Result<Self> {
        Ok(Self {
            space: json!({"name": PROBE, "reversed": false}),
            dataset: json!({"name": PROBE_DATA}),
            benchmark: Some(json!({"name": PROBE_TABLE})),
            trainer: quick()?,
            precision: Precision::Double,
            relabelled: Some(json!({"name": PROBE, "reversed": true})),
        })
    }

    /// The same with more epochs, for strategies that need them to show what they do.
    pub fn epochs(mut self, epochs: u64) -> Self {
        self.trainer.epochs = epochs;
        self
    }

    /// A problem of one's own, for strategies that the built-in one does not suit. Small is good: every option of the
    /// strategy takes a search or more.
    ///
    /// # Errors
    /// Settings that can't be written down.
    pub fn new(space: &dyn SpaceConfig, dataset: &dyn Dataset) -> Result<Self> {
        let value = |v: serde_json::Result<Value>| {
            v.map_err(|e| Error::Invalid {
                what: "problem of the conformance suite".into(),
                why: e.to_string(),
            })
        };
        Ok(Self {
            space: value(serde_json::to_value(space))?,
            dataset: value(serde_json::to_value(dataset))?,
            benchmark: None,
            trainer: quick()?,
            precision: Precision::Double,
            relabelled: None,
        })
    }
}

/// Two short epochs that report everything: plain SGD with momentum and decay, no clipping, no augmentation.
fn quick() -> Result<SearchTrainer> {
    let registry = Registry::load()?;
    let defaults = registry.get(Kind::Trainer, "search")?.default_section()?;
    let mut trainer: SearchTrainer = parse_section(&defaults).map_err(Box::new)?;
    trainer.epochs = 2;
    trainer.batch_size = 4;
    trainer.eval_batch_size = 4;
    trainer.log_every = 1;
    trainer.checkpoint_every = 1000;
    trainer.augment = Augment {
        crop_padding: 0,
        flip: false,
        ..trainer.augment
    };
    trainer.weights.lr = 0.05;
    trainer.weights.clip = 0.0;
    Ok(trainer)
}

const PROBE: &str = "conformance-probe";
const PROBE_DATA: &str = "conformance-images";
const PROBE_TABLE: &str = "conformance-table";
const OPS: usize = 3;

/// Settings of the space. It is not registered: the suite alone builds it.
#[derive(Debug, Serialize, Deserialize)]
struct ProbeConfig {
    /// Rows and candidates in the opposite order.
    reversed: bool,
}

#[typetag::serde(name = "conformance-probe")]
impl SpaceConfig for ProbeConfig {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let order = |mut names: Vec<String>| {
            if self.reversed {
                names.reverse();
            }
            names
        };
        let group = |name: &str, role: Role, rows: usize, keep: usize| {
            let candidates = |kind: &str| order((0..OPS).map(|c| format!("{kind}{c}")).collect());
            let rows = order((0..rows).map(|r| format!("{name} {r}")).collect());
            Group {
                name: name.into(),
                role,
                rows: rows
                    .into_iter()
                    .map(|name| Row {
                        name,
                        candidates: candidates(match role {
                            Role::Operations => "op",
                            Role::Topology => "source",
                        }),
                        keep,
                    })
                    .collect(),
                edges: None,
            }
        };
        let spec = ArchSpec::new(vec![
            group("first", Role::Operations, 2, 1),
            group("second", Role::Operations, 2, 1),
            group("inputs", Role::Topology, 1, 2),
        ])?;
        Ok(Box::new(Probe { spec }))
    }
}

struct Probe {
    spec: ArchSpec,
}

impl SearchSpace for Probe {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        Ok(Box::new(ProbeNet::new(&self.spec, task, options)?))
    }

    /// It is one linear map a candidate, none of them a skip connection.
    fn without_effect(&self) -> Vec<&'static str> {
        vec!["channels", "cells", "skip_dropout"]
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        let mut nodes: Vec<(String, Node)> = self
            .spec
            .rows()
            .flat_map(|(g, r, row)| {
                choice.kept(g, r).iter().map(move |&c| {
                    let op = format!("{} {}", row.name, row.candidates[c]);
                    let node = Node {
                        op: Some(op.clone()),
                        inputs: vec![Edge { from: 0, op: None }],
                    };
                    (op, node)
                })
            })
            .collect();
        nodes.sort_by(|a, b| a.0.cmp(&b.0));
        let output = (1..=nodes.len()).collect();
        Genotype {
            space: PROBE.into(),
            cells: vec![Cell {
                name: "cell".into(),
                inputs: vec!["input".into()],
                nodes: nodes.into_iter().map(|(_, node)| node).collect(),
                output,
            }],
        }
    }

    /// A linear layer for every kept candidate, the wider the higher its number: what is kept can be told from what it costs.
    fn network(
        &self,
        genotype: &Genotype,
        task: Task,
        _options: &NetworkOptions,
    ) -> Result<Network> {
        let (mut b, images) = NetworkBuilder::new(task);
        let mut x = b.global_average_pool(images);
        let ops = genotype.cells.iter().flat_map(|cell| &cell.nodes);
        for (i, op) in ops.filter_map(|node| node.op.as_ref()).enumerate() {
            let number = op.chars().last().and_then(|c| c.to_digit(10));
            x = b.linear(&i.to_string(), x, 2 + i64::from(number.unwrap_or_default()));
        }
        let logits = b.linear("classifier", x, task.classes);
        b.finish(logits, None)
    }
}

/// Random images of random classes.
#[derive(Debug, Serialize, Deserialize)]
struct ProbeData {}

#[typetag::serde(name = "conformance-images")]
impl Dataset for ProbeData {
    fn load(&self, _source: &DataSource) -> Result<ImageData> {
        use rand::RngExt;
        let task = Task {
            channels: 1,
            height: 2,
            width: 2,
            classes: 3,
        };
        let part = |name: &str, n: usize| {
            let mut rng = Streams::new(7).at(name, 0);
            Part {
                images: (0..n * 4)
                    .map(|_| rng.random::<u8>())
                    .collect::<Vec<_>>()
                    .into(),
                labels: (0..n).map(|_| rng.random_range(0..3u16)).collect(),
            }
        };
        ImageData {
            task,
            train: part("train", 24),
            test: part("test", 8),
            split: None,
            mean: vec![0.5],
            std: vec![0.25],
            classes: ["a", "b", "c"].map(Into::into).to_vec(),
        }
        .check(PROBE_DATA)
    }
}

/// Made-up results, one number for each architecture.
#[derive(Debug, Serialize, Deserialize)]
struct ProbeTable {}

struct Table {
    best: std::collections::BTreeMap<String, f64>,
}

/// The benchmark's metrics.
pub(super) const METRICS: [&str; 2] = ["test", "valid"];
/// The same after a shorter training.
const SHORT: [&str; 2] = ["valid@1", "test@1"];

#[typetag::serde(name = "conformance-table")]
impl BenchmarkConfig for ProbeTable {
    fn open(&self, _space: &Value) -> Result<Option<Box<dyn Benchmark>>> {
        let best = METRICS.map(|m| (m.to_owned(), 100.0)).into();
        Ok(Some(Box::new(Table { best })))
    }
}

impl Benchmark for Table {
    fn query(&self, genotype: &Genotype) -> Result<Option<Score>> {
        use rand::RngExt;
        let name = format!("{genotype:?}");
        let mut rng = Streams::new(11).at(&name, 0);
        let ([test, valid], [short, short_test]) = (METRICS, SHORT);
        Ok(Some(Score {
            metrics: [test, valid, short, short_test]
                .map(|m| (m.to_owned(), rng.random_range(0.0..100.0)))
                .into(),
            costs: [("valid".to_owned(), 2.0), (short.to_owned(), 1.0)].into(),
            ..Score::default()
        }))
    }

    fn optimum(&self) -> &std::collections::BTreeMap<String, f64> {
        &self.best
    }

    fn epochs(&self) -> Option<u64> {
        Some(2)
    }

    fn provenance(&self) -> Provenance {
        Provenance {
            source: "made-up numbers".into(),
            checksum: None,
            optimum: "100".into(),
        }
    }
}

/// φ of independent rows, entry by entry, in the other labelling: rows and candidates reversed within each group.
pub(super) fn relabel(spec: &ArchSpec, flat: &Tensor) -> Tensor {
    let flipped: Vec<Tensor> = spec
        .split(flat)
        .iter()
        .map(|group| group.flip([0, 1]).reshape([-1]))
        .collect();
    Tensor::cat(&flipped, 0).to_kind(flat.kind()).contiguous()
}
