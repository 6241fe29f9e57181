//! How cells are stacked into a network.

use nasfw_framework::prelude::*;

use super::cell_type::{CellType, Output};
use crate::layers::{ConvLayer, Layer, Role, factorized_reduce, relu_conv_norm};

/// What comes before the first cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stem {
    /// One 3×3 convolution, for images of about 32×32 pixels.
    Cifar,
    /// Three 3×3 convolutions of stride 2, for images of about 224×224 pixels.
    ImageNet,
}

/// How cells are stacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skeleton {
    /// DARTS (Liu et al. 2019): cells fit their inputs to their channels by themselves; the cells at one and two thirds
    /// are of the second type, with doubled channels at half the size. Counted in cells.
    Darts(Stem),
    /// NAS-Bench-201 (Dong & Yang 2020): three stages of cells of one type, with a residual block of stride 2 and
    /// doubled channels between them. Counted in cells a stage.
    Residual,
}

/// A chain of layers with the name that its parameters begin with.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// Beginning of parameters' names.
    pub name: String,
    /// The layers.
    pub layers: Vec<Layer>,
    /// Channels that come in.
    pub inputs: i64,
}

/// A part of the trunk.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// A cell.
    Cell {
        /// Beginning of parameters' names.
        name: String,
        /// Index of its type.
        kind: usize,
        /// Channels of its nodes.
        channels: i64,
        /// Whether edges from the inputs have stride 2.
        reduce: bool,
        /// What fits each input to the cell; none where the input fits as it is.
        inputs: Vec<Option<Chain>>,
        /// Whether the auxiliary head follows, in networks that have one.
        auxiliary: bool,
    },
    /// A residual block of stride 2: the sum of two chains.
    Residual(Chain, Chain),
}

/// A network without its cells' insides: all sizes are settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Images and classes.
    pub task: Task,
    /// Chains before the first block. The first block reads the last one or, of two inputs, the last two.
    pub stem: Vec<Chain>,
    /// The trunk.
    pub blocks: Vec<Block>,
    /// Layers between the trunk and the pooling.
    pub last: Chain,
    /// Pixels of the last, smallest maps.
    pub pixels: i64,
}

impl Skeleton {
    /// What candidates of its supernet look like.
    pub fn search_role(self) -> Role {
        Role::Search {
            pool_norm: matches!(self, Self::Darts(_)),
        }
    }

    /// Channels and cells of the published evaluation network.
    pub fn evaluation_size(self) -> (i64, usize) {
        match self {
            Self::Darts(Stem::Cifar) => (36, 20),
            Self::Darts(Stem::ImageNet) => (48, 14),
            Self::Residual => (16, 5),
        }
    }

    /// Refuses cell types that can't be stacked like this.
    pub fn check(self, cells: &[CellType]) -> Result<()> {
        let bad = |why: &str| {
            Err(Error::Invalid {
                what: "skeleton".into(),
                why: why.into(),
            })
        };
        match self {
            Self::Residual if cells.len() != 1 => bad("residual stages take one cell type"),
            Self::Residual if cells[0].inputs != 1 || cells[0].output != Output::Last => {
                bad("residual stages take cells with one input that put out their last node")
            }
            Self::Darts(_) if cells.is_empty() || cells.len() > 2 => {
                bad("it takes one cell type, or two: normal and reduction")
            }
            Self::Darts(_) if cells.iter().any(|c| !(1..=2).contains(&c.inputs)) => {
                bad("cells read one or two preceding cells")
            }
            _ if cells.iter().any(|c| c.nodes == 0) => bad("a cell needs at least one node"),
            _ => Ok(()),
        }
    }

    /// Settles all sizes of a network with `count` cells (a stage) and `channels` in the first ones. `types` are the
    /// numbers of inputs and of joined states of the cell types.
    ///
    /// # Errors
    /// Images that are too small or, for residual stages, not divisible by four; odd channels, which a reduction can't
    /// split into two halves.
    pub fn plan(
        self,
        space: &str,
        types: &[(usize, usize)],
        task: Task,
        channels: i64,
        count: usize,
        search: bool,
    ) -> Result<Plan> {
        let refuse = |what: String, why: &str, help: &str| {
            Err(Error::Incompatible {
                what: format!("{what} on space `{space}`"),
                why: why.into(),
                help: help.into(),
            })
        };
        let least = match self {
            Self::Darts(Stem::ImageNet) => 16,
            _ => 4,
        };
        let size = format!("images of {}×{} pixels", task.height, task.width);
        if task.height < least || task.width < least {
            let why = format!("it needs at least {least}×{least} pixels");
            return refuse(size, &why, "choose another dataset with `--dataset`");
        }
        if self == Self::Residual && (task.height % 4 != 0 || task.width % 4 != 0) {
            let why = "its stages halve the size twice, so both sides must be divisible by 4";
            return refuse(size, why, "choose another dataset with `--dataset`");
        }
        if channels < 2 || channels % 2 != 0 {
            return refuse(
                format!("{channels} channels"),
                "reductions split the channels into two halves",
                "choose an even number of channels",
            );
        }
        if count == 0 {
            return refuse(
                "a network without cells".into(),
                "there is nothing to search",
                "ask for at least one cell",
            );
        }
        Ok(match self {
            Self::Darts(stem) => darts(stem, types, task, channels, count, search),
            Self::Residual => residual(task, channels, count),
        })
    }
}

fn chain(name: impl Into<String>, inputs: i64, layers: Vec<Layer>) -> Chain {
    Chain {
        name: name.into(),
        layers,
        inputs,
    }
}

/// A state of the trunk: its channels, and how often its size was halved.
#[derive(Clone, Copy)]
struct State {
    channels: i64,
    halved: usize,
}

fn darts(
    stem: Stem,
    types: &[(usize, usize)],
    task: Task,
    channels: i64,
    count: usize,
    search: bool,
) -> Plan {
    let norm = Layer::BatchNorm { affine: true };
    let conv = |outputs, stride| Layer::Conv(ConvLayer::full(outputs, 3, stride));
    let (stem, mut states) = match stem {
        Stem::Cifar => {
            let c = 3 * channels;
            let only = chain("stem", task.channels, vec![conv(c, 1), norm]);
            let state = State {
                channels: c,
                halved: 0,
            };
            (vec![only], vec![state; 2])
        }
        Stem::ImageNet => {
            // Searching directly on ImageNet, PC-DARTS widens the stem as DARTS does on CIFAR.
            let c = if search { 3 * channels } else { channels };
            let first = vec![conv(c / 2, 2), norm, Layer::Relu, conv(c, 2), norm];
            let second = vec![Layer::Relu, conv(c, 2), norm];
            let stem = vec![
                chain("stem0", task.channels, first),
                chain("stem1", c, second),
            ];
            let state = |halved| State {
                channels: c,
                halved,
            };
            (stem, vec![state(2), state(3)])
        }
    };
    let mut c = channels;
    let blocks = (0..count)
        .map(|i| {
            let reduce = types.len() > 1 && (i == count / 3 || i == 2 * count / 3);
            let kind = usize::from(reduce);
            let (inputs, outputs) = types[kind];
            if reduce {
                c *= 2;
            }
            let name = format!("cells.{i}");
            let newest = states[states.len() - 1];
            let fits = (0..inputs)
                .map(|k| {
                    let state = states[states.len() - inputs + k];
                    let layers = if state.halved < newest.halved {
                        factorized_reduce(c, !search)
                    } else {
                        relu_conv_norm(c, !search)
                    };
                    Some(chain(format!("{name}.input{k}"), state.channels, layers))
                })
                .collect();
            states.push(State {
                channels: outputs as i64 * c,
                halved: newest.halved + usize::from(reduce),
            });
            Block::Cell {
                name,
                kind,
                channels: c,
                reduce,
                inputs: fits,
                auxiliary: i == 2 * count / 3,
            }
        })
        .collect();
    let last = states[states.len() - 1];
    Plan {
        task,
        stem,
        blocks,
        last: chain("last", last.channels, vec![]),
        pixels: pixels(task, last.halved),
    }
}

/// Pixels of an image whose sides were halved so often, each time rounded up.
fn pixels(task: Task, halved: usize) -> i64 {
    let side = |side: i64| (0..halved).fold(side, |side, _| (side + 1) / 2);
    side(task.height) * side(task.width)
}

fn residual(task: Task, channels: i64, count: usize) -> Plan {
    let norm = Layer::BatchNorm { affine: true };
    let conv = |outputs, kernel, stride| Layer::Conv(ConvLayer::full(outputs, kernel, stride));
    let mut blocks = Vec::new();
    for stage in 0..3 {
        let c = channels << stage;
        if stage > 0 {
            let name = format!("reduce{stage}");
            blocks.push(Block::Residual(
                chain(
                    format!("{name}.main"),
                    c / 2,
                    vec![
                        Layer::Relu,
                        conv(c, 3, 2),
                        norm,
                        Layer::Relu,
                        conv(c, 3, 1),
                        norm,
                    ],
                ),
                chain(
                    format!("{name}.shortcut"),
                    c / 2,
                    vec![Layer::Halve, conv(c, 1, 1)],
                ),
            ));
        }
        blocks.extend((0..count).map(|i| Block::Cell {
            name: format!("stage{stage}.{i}"),
            kind: 0,
            channels: c,
            reduce: false,
            inputs: vec![None],
            auxiliary: false,
        }));
    }
    Plan {
        task,
        stem: vec![chain(
            "stem",
            task.channels,
            vec![conv(channels, 3, 1), norm],
        )],
        blocks,
        last: chain("last", channels << 2, vec![norm, Layer::Relu]),
        pixels: pixels(task, 2),
    }
}
