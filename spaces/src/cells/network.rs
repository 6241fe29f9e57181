//! The network of a found cell, to be trained alone.

use nasfw_framework::network::{Conv, Network, NetworkBuilder, NetworkOptions, Value};
use nasfw_framework::prelude::*;

use super::CellSpace;
use super::skeleton::{Block, Chain, Skeleton, Stem};
use crate::layers::{Layer, Op, Role};

impl CellSpace {
    /// The network of a genotype whose cells have the names and numbers of inputs of this space's; nodes, edges and
    /// joined states may be others, several operations on one edge and nodes without inputs among them. Its layers
    /// are those of the evaluation or, to compare it with the supernet, those of the search.
    pub(super) fn standalone(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
        role: Role,
    ) -> Result<Network> {
        genotype.check()?;
        let cells: Vec<&Cell> = self
            .cells
            .iter()
            .map(|wanted| {
                let cell = genotype.cells.iter().find(|c| c.name == wanted.name);
                let fits = cell.filter(|c| c.inputs.len() == wanted.inputs);
                fits.ok_or_else(|| {
                    refuse(
                        &self.name,
                        format!(
                            "it has no cell `{}` with {} inputs",
                            wanted.name, wanted.inputs
                        ),
                    )
                })
            })
            .collect::<Result<_>>()?;
        let cells: Vec<Built> = cells
            .into_iter()
            .map(|cell| Built::of(&self.name, cell))
            .collect::<Result<_>>()?;
        let types: Vec<(usize, usize)> = cells.iter().map(|c| (c.inputs, c.output.len())).collect();
        let (channels, count) = self.skeleton.evaluation_size();
        let plan = self.skeleton.plan(
            &self.name,
            &types,
            task,
            options.channels.unwrap_or(channels),
            options.cells.unwrap_or(count),
            role != Role::Evaluation,
        )?;
        let (mut b, images) = NetworkBuilder::new(task);
        let mut states: Vec<Value> = Vec::new();
        for stem in &plan.stem {
            let x = chain(&mut b, stem, states.last().copied().unwrap_or(images));
            states.push(x);
        }
        if states.len() == 1 {
            states.push(states[0]);
        }
        let mut auxiliary = None;
        for block in &plan.blocks {
            let newest = states[states.len() - 1];
            match block {
                Block::Residual(main, shortcut) => {
                    let parts = [chain(&mut b, main, newest), chain(&mut b, shortcut, newest)];
                    states.push(b.add(&parts));
                }
                Block::Cell {
                    name,
                    kind,
                    channels,
                    reduce,
                    inputs,
                    auxiliary: head,
                } => {
                    let before = states[states.len() - inputs.len()..].iter();
                    let inputs: Vec<Value> = before
                        .zip(inputs)
                        .map(|(x, fit)| match fit {
                            Some(fit) => chain(&mut b, fit, *x),
                            None => *x,
                        })
                        .collect();
                    let y = cells[*kind].build(&mut b, name, inputs, *channels, *reduce, role);
                    states.push(y);
                    if *head && options.auxiliary {
                        auxiliary = Some(auxiliary_head(&mut b, self, y, task.classes)?);
                    }
                }
            }
        }
        if options.auxiliary && auxiliary.is_none() {
            let why = "its networks have no auxiliary head".into();
            return Err(Error::Incompatible {
                what: format!("an auxiliary classifier on space `{}`", self.name),
                why,
                help: "train it with `--set space.auxiliary=0`".into(),
            });
        }
        let x = chain(&mut b, &plan.last, states[states.len() - 1]);
        let pooled = b.global_average_pool(x);
        let logits = b.linear("classifier", pooled, task.classes);
        b.finish(logits, auxiliary)
    }
}

fn refuse(space: &str, why: String) -> Error {
    Error::Incompatible {
        what: format!("this genotype on space `{space}`"),
        why,
        help: "`nasfw draw SPACE` shows what cells of a space look like".into(),
    }
}

/// A cell with its operations looked up.
struct Built {
    inputs: usize,
    /// Per node, its edges: source and operation.
    nodes: Vec<Vec<(usize, Op)>>,
    output: Vec<usize>,
}

impl Built {
    fn of(space: &str, cell: &Cell) -> Result<Self> {
        let inputs = cell.inputs.len();
        let op = |node: usize, edge: &Edge| {
            let name = edge.op.as_deref().unwrap_or_default();
            let op = Op::from_name(name).ok_or_else(|| {
                let place = format!("node {} of cell `{}`", inputs + node, cell.name);
                refuse(space, format!("{place} has an unknown operation `{name}`"))
            })?;
            Ok((edge.from, op))
        };
        let nodes = cell.nodes.iter().enumerate().map(|(n, node)| {
            let edges = node.inputs.iter().map(|e| op(n, e));
            edges.collect::<Result<Vec<_>>>()
        });
        if let Some(state) = cell.output.iter().find(|s| **s < inputs) {
            let why = format!("cell `{}` puts out its own input {state}", cell.name);
            return Err(refuse(space, why));
        }
        if cell.output.is_empty() {
            return Err(refuse(
                space,
                format!("cell `{}` puts nothing out", cell.name),
            ));
        }
        Ok(Self {
            inputs,
            nodes: nodes.collect::<Result<_>>()?,
            output: cell.output.clone(),
        })
    }

    fn build(
        &self,
        b: &mut NetworkBuilder,
        name: &str,
        inputs: Vec<Value>,
        channels: i64,
        reduce: bool,
        role: Role,
    ) -> Value {
        let first = inputs[0];
        let mut states = inputs;
        for (n, edges) in self.nodes.iter().enumerate() {
            let mut sum: Vec<Value> = Vec::with_capacity(edges.len());
            for (k, (from, op)) in edges.iter().enumerate() {
                let stride = if reduce && *from < self.inputs { 2 } else { 1 };
                let layers = Chain {
                    name: format!("{name}.node{}.edge{k}.{}", n + 1, op.name()),
                    layers: op.layers(channels, stride, role),
                    inputs: channels,
                };
                let y = match op {
                    Op::None => b.zeros(states[*from], stride),
                    _ => chain(b, &layers, states[*from]),
                };
                // Drop path spares the identity, as in the published code.
                let identity = layers.layers.is_empty();
                sum.push(if identity { y } else { b.drop_path(y) });
            }
            states.push(match sum.as_slice() {
                [] => b.zeros(first, if reduce { 2 } else { 1 }),
                sum => b.add(sum),
            });
        }
        let output: Vec<Value> = self.output.iter().map(|&s| states[s]).collect();
        b.concat(&output)
    }
}

fn chain(b: &mut NetworkBuilder, chain: &Chain, x: Value) -> Value {
    let mut x = x;
    for (i, layer) in chain.layers.iter().enumerate() {
        let name = format!("{}.{i}", chain.name);
        x = match *layer {
            Layer::Relu => b.relu(x),
            Layer::Conv(c) => {
                let groups = if c.depthwise { b.shape(x)[0] } else { 1 };
                let conv = Conv {
                    kernel: c.kernel,
                    stride: c.stride,
                    padding: c.padding(),
                    dilation: c.dilation,
                    groups,
                    bias: c.bias,
                };
                b.conv(&name, x, c.outputs, conv)
            }
            Layer::BatchNorm { affine } => b.batch_norm(&name, x, affine),
            Layer::FactorizedReduce { outputs } => {
                let shifted = b.shift(x);
                let half = Conv::same(1).stride(2);
                let first = b.conv(&format!("{name}.first"), x, outputs / 2, half);
                let second = b.conv(&format!("{name}.second"), shifted, outputs / 2, half);
                b.concat(&[first, second])
            }
            Layer::MaxPool { stride } => b.max_pool(x, 3, stride, 1),
            Layer::AvgPool { stride } => b.avg_pool(x, 3, stride, 1),
            Layer::Halve => b.avg_pool(x, 2, 2, 0),
            Layer::Noise { stride } => b.noise(x, stride),
        };
    }
    x
}

/// The auxiliary head of DARTS: ReLU, mean over 5×5 windows to 2×2, 1×1 convolution to 128, 2×2 convolution to 768,
/// each with batch norm and ReLU, classifier. The windows' stride is what makes 2×2: 3 on CIFAR (8×8), 2 on ImageNet
/// (7×7), as published. Behind ImageNet's stem the last batch norm is left out, as in DARTS's code for it.
fn auxiliary_head(
    b: &mut NetworkBuilder,
    space: &CellSpace,
    x: Value,
    classes: i64,
) -> Result<Value> {
    let [_, h, w] = b.shape(x);
    let side = h.min(w);
    if side < 6 {
        return Err(Error::Incompatible {
            what: format!("an auxiliary classifier on space `{}`", space.name),
            why: format!("the map in front of it has {h}×{w} pixels, it needs 6×6"),
            help: "train it with `--set space.auxiliary=0`".into(),
        });
    }
    let x = b.relu(x);
    let x = b.avg_pool(x, 5, side - 5, 0);
    let x = b.conv("auxiliary.0", x, 128, Conv::same(1));
    let x = b.batch_norm("auxiliary.1", x, true);
    let x = b.relu(x);
    let conv = Conv {
        kernel: [2, 2],
        padding: [0, 0],
        ..Conv::same(1)
    };
    let x = b.conv("auxiliary.2", x, 768, conv);
    let x = match space.skeleton {
        Skeleton::Darts(Stem::ImageNet) => x,
        _ => b.batch_norm("auxiliary.3", x, true),
    };
    let x = b.relu(x);
    Ok(b.linear("auxiliary.classifier", x, classes))
}
