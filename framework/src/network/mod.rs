//! Standalone networks: what a derived architecture becomes when it is trained alone.
//!
//! A network is a list of primitive operations in topological order. The forward pass, the counts of parameters and
//! multiply-adds and the exported files all come from that one description, so that they can't disagree.
//!
//! ```
//! use nasfw_framework::network::{Conv, NetworkBuilder};
//! use nasfw_framework::space::Task;
//!
//! let task = Task { channels: 3, height: 32, width: 32, classes: 10 };
//! let (mut b, images) = NetworkBuilder::new(task);
//! let x = b.conv("stem.conv", images, 16, Conv::same(3));
//! let x = b.batch_norm("stem.bn", x, true);
//! let x = b.relu(x);
//! let x = b.global_average_pool(x);
//! let logits = b.linear("classifier", x, task.classes);
//! let network = b.finish(logits, None)?;
//! assert_eq!(network.cost().params, 3 * 3 * 3 * 16 + 2 * 16 + 16 * 10 + 10);
//! # Ok::<(), nasfw_framework::Error>(())
//! ```

mod builder;
mod forward;
mod onnx;
mod pool;
mod standalone;
mod weights;

pub use builder::{Conv, NetworkBuilder, Value};
pub use forward::{Logits, channels_last};
pub use onnx::{ONNX_OPSET, ONNX_OPSETS};
pub use pool::average_pool;
pub use standalone::{DROP_PATH, Standalone};

use serde::{Deserialize, Serialize};

use crate::params::{ParamId, ParamLayout};
use crate::space::Task;

/// What is asked of a standalone network beside its architecture; none means the size at which the space's paper
/// evaluates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkOptions {
    /// Initial channels.
    pub channels: Option<i64>,
    /// Number of cells.
    pub cells: Option<usize>,
    /// A second classifier in the middle of the network, for training only.
    pub auxiliary: bool,
}

/// What a network costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Trained parameters without the auxiliary classifier's.
    pub params: i64,
    /// Trained parameters of the auxiliary classifier.
    pub auxiliary_params: i64,
    /// Multiply-adds of one image through the convolutions and linear layers, without the auxiliary classifier's.
    pub macs: i64,
}

/// A primitive operation. Every value is `[n, c, h, w]`, or `[n, c]` where [`Step::flat`] says so.
#[derive(Debug, Clone, PartialEq)]
enum Op {
    Images,
    Conv {
        weight: ParamId,
        bias: Option<ParamId>,
        conv: Conv,
    },
    BatchNorm {
        scale: Option<[ParamId; 2]>,
        running: [ParamId; 2],
    },
    Relu,
    MaxPool(Pool),
    /// Padding is not counted.
    AvgPool(Pool),
    Add,
    Concat,
    Channels {
        first: i64,
        count: i64,
    },
    Shift,
    Zeros,
    Noise,
    DropPath,
    GlobalAveragePool,
    Flatten,
    Linear {
        weight: ParamId,
        bias: ParamId,
    },
}

/// A square pooling window.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Pool {
    kernel: i64,
    stride: i64,
    padding: i64,
}

/// An operation in its place.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    op: Op,
    /// Indices of earlier steps.
    inputs: Vec<usize>,
    /// Channels, height, width of the result.
    shape: [i64; 3],
    /// Whether the result is `[n, c]`.
    flat: bool,
}

/// The steps that an output needs, and how many readers each of them has.
#[derive(Debug, Clone)]
struct Plan {
    steps: Vec<usize>,
    readers: Vec<usize>,
}

impl Plan {
    fn new(steps: &[Step], outputs: &[usize]) -> Self {
        let mut readers = vec![0; steps.len()];
        for &output in outputs {
            readers[output] += 1;
        }
        for (i, step) in steps.iter().enumerate().rev() {
            if readers[i] > 0 {
                step.inputs.iter().for_each(|&input| readers[input] += 1);
            }
        }
        Self {
            steps: (0..steps.len()).filter(|&i| readers[i] > 0).collect(),
            readers,
        }
    }
}

/// A network to be trained alone. It holds no tensors: the same object serves any weights, kind and device.
///
/// What no output depends on is not computed and not exported, but it was asked for, so its parameters exist and it is
/// counted: NAS-Bench-201's and DARTS' own counters do the same.
#[derive(Debug, Clone)]
pub struct Network {
    task: Task,
    steps: Vec<Step>,
    params: ParamLayout,
    stats: ParamLayout,
    momentum: f64,
    eps: f64,
    logits: usize,
    auxiliary: Option<usize>,
    /// What evaluation computes.
    main: Plan,
    /// What training computes: the auxiliary classifier too.
    training: Plan,
}

impl Network {
    /// The images and classes that it is for.
    pub fn task(&self) -> Task {
        self.task
    }

    /// Layout of the trained parameters.
    pub fn layout(&self) -> &ParamLayout {
        &self.params
    }

    /// Layout of the running statistics of batch norm.
    pub fn stats_layout(&self) -> &ParamLayout {
        &self.stats
    }

    /// Whether it has an auxiliary classifier.
    pub fn has_auxiliary(&self) -> bool {
        self.auxiliary.is_some()
    }

    /// Parameters and multiply-adds. Batch norm, pooling, additions and biases cost no multiply-adds here.
    pub fn cost(&self) -> Cost {
        let mut cost = Cost {
            params: 0,
            auxiliary_params: 0,
            macs: 0,
        };
        for (i, step) in self.steps.iter().enumerate() {
            let params: i64 = step.op.params().map(|id| self.params.numel_of(id)).sum();
            if self.main.readers[i] == 0 && self.training.readers[i] > 0 {
                cost.auxiliary_params += params;
                continue;
            }
            cost.params += params;
            if let Op::Conv { weight, .. } | Op::Linear { weight, .. } = step.op {
                let [_, height, width] = step.shape;
                cost.macs += self.params.numel_of(weight) * height * width;
            }
        }
        cost
    }
}

impl Op {
    /// Its trained parameters.
    fn params(&self) -> impl Iterator<Item = ParamId> {
        match *self {
            Self::Conv { weight, bias, .. } => [Some(weight), bias],
            Self::BatchNorm { scale, .. } => [scale.map(|s| s[0]), scale.map(|s| s[1])],
            Self::Linear { weight, bias } => [Some(weight), Some(bias)],
            _ => [None, None],
        }
        .into_iter()
        .flatten()
    }

    /// Whether two of them with the same inputs give the same result.
    fn is_pure(&self) -> bool {
        matches!(
            self,
            Self::Relu
                | Self::MaxPool(_)
                | Self::AvgPool(_)
                | Self::Channels { .. }
                | Self::Shift
                | Self::GlobalAveragePool
                | Self::Flatten
        )
    }
}
