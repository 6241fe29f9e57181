//! A network as a list of operations.

use serde::{Deserialize, Serialize};

use crate::dataset::Task;
use crate::params::{ParamId, ParamLayout};

/// The geometry of a convolution; pairs are (height, width).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv {
    /// Size of the kernel.
    pub kernel: [i64; 2],
    /// Step.
    pub stride: [i64; 2],
    /// Zeros on each side.
    pub padding: [i64; 2],
    /// Distance between the kernel's points.
    pub dilation: i64,
    /// Groups of channels that don't see each other; the number of input channels makes it depthwise.
    pub groups: i64,
    /// Whether a bias is added.
    pub bias: bool,
}

impl Conv {
    /// A square kernel of odd size, stride 1, padded so that the size stays; no bias.
    pub fn same(kernel: i64) -> Self {
        Self {
            kernel: [kernel; 2],
            stride: [1; 2],
            padding: [kernel / 2; 2],
            dilation: 1,
            groups: 1,
            bias: false,
        }
    }

    /// The same with another stride.
    pub fn stride(self, stride: i64) -> Self {
        Self {
            stride: [stride; 2],
            ..self
        }
    }

    /// The same with so many groups.
    pub fn groups(self, groups: i64) -> Self {
        Self { groups, ..self }
    }

    /// The same dilated, with as much more padding as keeps the size.
    pub fn dilation(self, dilation: i64) -> Self {
        Self {
            dilation,
            padding: self.kernel.map(|k| dilation * (k - 1) / 2),
            ..self
        }
    }
}

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

/// How large a network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Trained parameters without the auxiliary classifier's.
    pub params: i64,
    /// Trained parameters of the auxiliary classifier.
    pub auxiliary_params: i64,
    /// Multiply-adds of one image through the convolutions and linear layers, without the auxiliary classifier's.
    pub macs: i64,
}

/// A primitive operation. Every value is `[n, c, h, w]`, or `[n, c]` where [`Step::flat`] says so.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    Images,
    Conv {
        weight: ParamId,
        bias: Option<ParamId>,
        conv: Conv,
    },
    BatchNorm {
        scale: Option<[ParamId; 2]>,
        /// None: the batch's statistics, always.
        running: Option<[ParamId; 2]>,
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
    /// The inputs times their weights in an architecture, plus the row's offset.
    Mix(Mix),
}

/// What an open decision mixes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mix {
    pub(super) group: usize,
    pub(super) row: usize,
    /// Columns of the inputs.
    pub(super) columns: Vec<usize>,
}

/// A square pooling window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pool {
    pub(super) kernel: i64,
    pub(super) stride: i64,
    pub(super) padding: i64,
}

/// An operation in its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) op: Op,
    /// Indices of earlier steps.
    pub(super) inputs: Vec<usize>,
    /// Channels, height, width of the result.
    pub(super) shape: [i64; 3],
    /// Whether the result is `[n, c]`.
    pub(super) flat: bool,
    /// How often it was asked for: equal steps are one.
    pub(super) times: i64,
}

impl Step {
    /// Sizes of the result without the batch's.
    pub(super) fn dims(&self) -> &[i64] {
        match self.flat {
            true => &self.shape[..1],
            false => &self.shape,
        }
    }
}

/// The steps that an output needs, and how many readers each of them has.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) steps: Vec<usize>,
    pub(super) readers: Vec<usize>,
}

impl Plan {
    pub(super) fn new(steps: &[Step], outputs: &[usize]) -> Self {
        Self::reading(steps, outputs, |step| step.inputs.clone())
    }

    /// The same of steps that read less than all of their inputs.
    pub(super) fn reading(
        steps: &[Step],
        outputs: &[usize],
        read: impl Fn(&Step) -> Vec<usize>,
    ) -> Self {
        let mut readers = vec![0; steps.len()];
        for &output in outputs {
            readers[output] += 1;
        }
        for (i, step) in steps.iter().enumerate().rev() {
            if readers[i] > 0 {
                read(step).into_iter().for_each(|input| readers[input] += 1);
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
/// counted: NAS-Bench-201's and DARTS' own counters do the same. While somebody observes ([`crate::observe`]) it is
/// computed, too, as these programs always do.
#[derive(Debug, Clone)]
pub struct Network {
    pub(super) task: Task,
    pub(super) steps: Vec<Step>,
    pub(super) params: ParamLayout,
    pub(super) stats: ParamLayout,
    pub(super) momentum: f64,
    pub(super) eps: f64,
    pub(super) logits: usize,
    pub(super) auxiliary: Option<usize>,
    /// What evaluation computes.
    pub(super) main: Plan,
    /// What training computes: the auxiliary classifier too.
    pub(super) training: Plan,
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

    /// Handles of the weights of all convolutions and linear layers, in their order: what saliencies are taken of.
    pub fn kernels(&self) -> impl Iterator<Item = ParamId> + '_ {
        self.steps.iter().filter_map(|step| step.op.kernel())
    }

    /// The same network in which every batch norm hands its input on. Layouts stay: the parameters and statistics of batch
    /// norms have no effect.
    #[must_use]
    pub fn without_batch_norm(&self) -> Self {
        let mut steps = self.steps.clone();
        // What is read in the place of each step.
        let mut source: Vec<usize> = (0..steps.len()).collect();
        for i in 0..steps.len() {
            let inputs = steps[i].inputs.iter().map(|&input| source[input]);
            steps[i].inputs = inputs.collect();
            if let Op::BatchNorm { .. } = steps[i].op {
                source[i] = steps[i].inputs[0];
            }
        }
        let logits = source[self.logits];
        let auxiliary = self.auxiliary.map(|a| source[a]);
        let outputs: Vec<usize> = std::iter::once(logits).chain(auxiliary).collect();
        Self {
            main: Plan::new(&steps, &[logits]),
            training: Plan::new(&steps, &outputs),
            steps,
            logits,
            auxiliary,
            ..self.clone()
        }
    }

    /// What is computed while somebody observes: also what no output depends on, because it was asked for.
    pub(super) fn observed(&self, training: bool) -> Plan {
        let idle = (0..self.steps.len()).filter(|&i| self.training.readers[i] == 0);
        let auxiliary = self.auxiliary.filter(|_| training);
        let outputs = std::iter::once(self.logits).chain(auxiliary).chain(idle);
        Plan::new(&self.steps, &outputs.collect::<Vec<_>>())
    }

    /// Parameters and multiply-adds. Batch norm, pooling, additions and biases cost no multiply-adds here.
    pub fn size(&self) -> Size {
        let mut size = Size {
            params: 0,
            auxiliary_params: 0,
            macs: 0,
        };
        for (i, step) in self.steps.iter().enumerate() {
            let params: i64 = step.op.params().map(|id| self.params.numel_of(id)).sum();
            if self.main.readers[i] == 0 && self.training.readers[i] > 0 {
                size.auxiliary_params += params;
                continue;
            }
            size.params += params;
            if let Op::Conv { weight, .. } | Op::Linear { weight, .. } = step.op {
                let [_, height, width] = step.shape;
                size.macs += self.params.numel_of(weight) * height * width;
            }
        }
        size
    }
}

impl Network {
    /// Bytes of intermediate values, images included, that one image needs at once in evaluation, in 32-bit numbers: operations
    /// run in their order, a result is there from its operation to its last reader, and nothing is computed in place.
    pub fn activation_bytes(&self) -> i64 {
        let bytes = |i: usize| self.steps[i].shape.iter().product::<i64>() * 4;
        let mut left = self.main.readers.clone();
        let (mut held, mut most) = (0, 0);
        for &i in &self.main.steps {
            held += bytes(i);
            most = most.max(held);
            for &input in &self.steps[i].inputs {
                left[input] -= 1;
                if left[input] == 0 {
                    held -= bytes(input);
                }
            }
        }
        most
    }
}

impl Op {
    /// The weight of a convolution or linear layer.
    pub(super) fn kernel(&self) -> Option<ParamId> {
        match *self {
            Self::Conv { weight, .. } | Self::Linear { weight, .. } => Some(weight),
            _ => None,
        }
    }

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
    pub(super) fn is_pure(&self) -> bool {
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
