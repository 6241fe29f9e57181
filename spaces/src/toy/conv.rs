//! A tiny convolutional cell: three edges, three candidates, 27 architectures, any images.

use nasfw_framework::network::average_pool;
use nasfw_framework::prelude::*;
use nasfw_framework::{observe, register};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::grid_choice;
use crate::ops::{Builder, Classifier, ConvBnRelu, Pass};
use crate::options::{check_partial, drop_path, dropout, shuffled, split_channels};

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
        options.check(&self.spec)?;
        let c = options.channels.unwrap_or(self.channels);
        check_partial(NAME, c, options.partial())?;
        Ok(Box::new(ToyConvNet::new(task, c, options)))
    }

    /// There is one cell.
    fn without_effect(&self) -> Vec<&'static str> {
        vec!["cells"]
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

/// Name and place of a candidate.
fn place(edge: usize, op: usize) -> (String, Place) {
    let ((from, to), name) = (EDGES[edge], OPERATIONS[op]);
    let place = Place::Candidate {
        cell: 0,
        group: 0,
        row: edge,
        column: op,
    };
    (format!("edge{from}{to}.{name}"), place)
}

struct ToyConvNet {
    options: SupernetOptions,
    params: ParamLayout,
    stats: ParamLayout,
    stem: ConvBnRelu,
    /// Per edge, where the candidate exists.
    convs: Vec<Option<ConvBnRelu>>,
    classifier: Classifier,
    /// Of an image; no map is smaller.
    pixels: i64,
}

impl ToyConvNet {
    fn new(task: Task, c: i64, options: &SupernetOptions) -> Self {
        let mut b = Builder::new(options.batch_norm);
        let stem = ConvBnRelu::new(&mut b, "stem", (task.channels, c), 3, MOMENTUM);
        let mixed = c / options.partial();
        let convs = EDGES
            .iter()
            .enumerate()
            .map(|(e, (i, j))| {
                let name = format!("edge{i}{j}.conv3x3");
                let conv = |b| ConvBnRelu::new(b, &name, (mixed, mixed), 3, MOMENTUM);
                options.allows(0, e, 1).then(|| conv(&mut b))
            })
            .collect();
        let classifier = Classifier::new(&mut b, "classifier", c, task.classes);
        Self {
            options: options.clone(),
            params: b.params,
            stats: b.stats,
            stem,
            convs,
            classifier,
            pixels: task.height * task.width,
        }
    }

    /// What an edge puts out; none where nothing is computed.
    fn edge(
        &self,
        pass: &Pass,
        edge: usize,
        whole: &Tensor,
        arch: &RelaxedArch,
        noise: Streams,
    ) -> Result<Option<Tensor>> {
        let options = &self.options;
        let (skip_dropout, path) = options.rates(arch, pass.mode)?;
        let mixed = whole.size()[1] / options.partial();
        let (x, rest) = split_channels(whole, mixed, 1);
        let computed = |op: &usize| options.allows(0, edge, *op) && arch.is_active(0, edge, *op);
        let candidates = (0..OPERATIONS.len()).filter(computed).map(|op| {
            let y = match (op, &self.convs[edge]) {
                (0, _) if skip_dropout > 0.0 => {
                    let rng = &mut noise.at("skip-dropout", edge as u64);
                    &x * dropout(rng, &x.size(), skip_dropout, &x)
                }
                (0, _) => x.shallow_clone(),
                (1, Some(conv)) => conv.forward(pass, &x),
                _ => average_pool(&x, 3, 1, 1),
            };
            let y = observe::candidate(&y, || place(edge, op));
            y * arch.weights[0].get(edge as i64).get(op as i64)
        });
        let sum = candidates.reduce(|a, b| a + b).map(|sum| {
            let sum = match options.partial() {
                1 => sum,
                _ => shuffled(&sum, &(rest * options.row_sums(arch, 0).get(edge as i64))),
            };
            match drop_path(noise, edge, path, whole) {
                Some(kept) => sum * kept,
                None => sum,
            }
        });
        let auxiliary = options.auxiliary(arch);
        let beside = (auxiliary != 0.0).then(|| whole * auxiliary);
        let offset = arch
            .offsets
            .as_ref()
            .map(|of| whole.zeros_like() + of[0].get(edge as i64));
        let parts = [sum, beside, offset].into_iter().flatten();
        Ok(parts.reduce(|a, b| a + b))
    }
}

impl Supernet for ToyConvNet {
    fn layout(&self) -> &ParamLayout {
        &self.params
    }

    fn stats_layout(&self) -> ParamLayout {
        self.stats.clone()
    }

    fn cells(&self) -> usize {
        1
    }

    fn own_weights(&self) -> Vec<OwnWeights> {
        let own = |(row, conv): (usize, &Option<ConvBnRelu>)| {
            Some(OwnWeights {
                cell: 0,
                group: 0,
                row,
                column: 1,
                stretches: conv.as_ref()?.stretches(&self.params, 0, 1),
            })
        };
        self.convs.iter().enumerate().filter_map(own).collect()
    }

    fn takes_one_image(&self) -> bool {
        self.pixels > 1
    }

    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        mode: Mode,
        noise: Streams,
    ) -> Result<Tensor> {
        let pass = Builder::pass(&self.params, &self.stats, weights, mode);
        let stem = self.stem.forward(&pass, images);
        let nothing = || stem.zeros_like();
        let arch = &arch.of_cell(0);
        let edge = |e: usize, x: &Tensor| self.edge(&pass, e, x, arch, noise);
        let one = edge(0, &stem)?.unwrap_or_else(nothing);
        let two = [edge(1, &stem)?, edge(2, &one)?];
        let two = two
            .into_iter()
            .flatten()
            .reduce(|a, b| a + b)
            .unwrap_or_else(nothing);
        Ok(self.classifier.forward(&pass, &two))
    }
}
