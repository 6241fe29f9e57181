//! A tiny convolutional cell: three edges, three candidates, 27 architectures, any images.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::supernet::BatchNormStats;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::grid_choice;
use crate::ops::{Builder, Classifier, ConvBnRelu, Pass, refuse_options};

const NAME: &str = "toy-conv";
const OPERATIONS: [&str; 3] = ["skip", "conv3x3", "avgpool3x3"];
/// Edges as (from, to) of states 0 (the stem), 1 and 2.
const EDGES: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];
const MOMENTUM: f64 = 0.1;

/// Settings of the space.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToyConv {
    /// Channels.
    pub channels: i64,
}

register! {
    space "toy-conv" => ToyConv,
    summary: "toy: a convolutional cell of 27 architectures on any images",
    source: "nasfw",
    defaults: r#"[space]
# Channels.
channels = 4

[dataset]
name = "synthetic"

[trainer]
epochs = 2
batch_size = 64

[trainer.augment]
crop_padding = 1
"#,
    example: "nasfw run --strategy darts --space toy-conv",
}

#[typetag::serde(name = "toy-conv")]
impl SpaceConfig for ToyConv {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let rows = EDGES
            .iter()
            .map(|(from, to)| Row {
                name: format!("{from}->{to}"),
                candidates: OPERATIONS.map(str::to_owned).to_vec(),
                keep: 1,
            })
            .collect();
        let group = Group {
            name: "cell".into(),
            role: Role::Operations,
            rows,
            edges: Some(Edges {
                ends: EDGES.to_vec(),
                keep: None,
            }),
        };
        Ok(Box::new(ToyConvSpace {
            spec: ArchSpec::new(vec![group])?,
            channels: self.channels,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("space.channels", self.channels, 1, 1024);
    }
}

struct ToyConvSpace {
    spec: ArchSpec,
    channels: i64,
}

impl SearchSpace for ToyConvSpace {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        refuse_options(NAME, options, &["channels"])?;
        let c = options.channels.unwrap_or(self.channels);
        Ok(Box::new(ToyConvNet::new(task, c, options.batch_norm)))
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        let edge = |e: usize| Edge {
            from: EDGES[e].0,
            op: choice.kept(0, e).first().map(|&o| OPERATIONS[o].to_owned()),
        };
        let node = |inputs: Vec<Edge>| Node { op: None, inputs };
        Genotype {
            space: NAME.into(),
            cells: vec![Cell {
                name: "cell".into(),
                inputs: vec!["stem".into()],
                nodes: vec![node(vec![edge(0)]), node(vec![edge(1), edge(2)])],
                output: vec![2],
            }],
        }
    }

    fn choice(&self, genotype: &Genotype) -> Result<Choice> {
        // As a grid of three rows, one an edge.
        let edges = genotype
            .cells
            .iter()
            .flat_map(|c| &c.nodes)
            .flat_map(|n| &n.inputs);
        let nodes = edges
            .map(|e| Node {
                op: e.op.clone(),
                inputs: vec![],
            })
            .collect();
        let flat = Cell {
            name: String::new(),
            inputs: vec![],
            nodes,
            output: vec![],
        };
        grid_choice(
            NAME,
            &self.spec,
            &Genotype {
                space: NAME.into(),
                cells: vec![flat],
            },
        )
    }
}

struct ToyConvNet {
    params: ParamLayout,
    stats: ParamLayout,
    stem: ConvBnRelu,
    convs: Vec<ConvBnRelu>,
    classifier: Classifier,
}

impl ToyConvNet {
    fn new(task: Task, c: i64, batch_norm: BatchNormStats) -> Self {
        let mut b = Builder::new(batch_norm);
        let stem = ConvBnRelu::new(&mut b, "stem", (task.channels, c), 3, MOMENTUM);
        let convs = EDGES
            .iter()
            .map(|(i, j)| {
                ConvBnRelu::new(&mut b, &format!("edge{i}{j}.conv3x3"), (c, c), 3, MOMENTUM)
            })
            .collect();
        let classifier = Classifier::new(&mut b, "classifier", c, task.classes);
        Self {
            params: b.params,
            stats: b.stats,
            stem,
            convs,
            classifier,
        }
    }

    fn edge(&self, pass: &Pass, edge: usize, x: &Tensor, arch: &RelaxedArch) -> Option<Tensor> {
        let mut sum: Option<Tensor> = None;
        for op in (0..OPERATIONS.len()).filter(|&op| arch.is_active(0, edge, op)) {
            let y = match op {
                0 => x.shallow_clone(),
                1 => self.convs[edge].forward(pass, x),
                _ => x.avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None),
            };
            let y = y * arch.weights[0].get(edge as i64).get(op as i64);
            sum = Some(match sum {
                Some(sum) => sum + y,
                None => y,
            });
        }
        sum
    }
}

impl Supernet for ToyConvNet {
    fn layout(&self) -> &ParamLayout {
        &self.params
    }

    fn stats_layout(&self) -> ParamLayout {
        self.stats.clone()
    }

    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        mode: Mode,
        _noise: Streams,
    ) -> Result<Tensor> {
        let pass = Builder::pass(&self.params, &self.stats, weights, mode);
        let stem = self.stem.forward(&pass, images);
        let nothing = || stem.zeros_like();
        let one = self.edge(&pass, 0, &stem, arch).unwrap_or_else(nothing);
        let two = [
            self.edge(&pass, 1, &stem, arch),
            self.edge(&pass, 2, &one, arch),
        ];
        let two = two
            .into_iter()
            .flatten()
            .reduce(|a, b| a + b)
            .unwrap_or_else(nothing);
        Ok(self.classifier.forward(&pass, &two))
    }
}
