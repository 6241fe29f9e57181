//! Writing a network down, with the shape of every value known on the way.

use super::decisions::Decisions;
use super::graph::{Conv, Network, Op, Plan, Pool, Step};
use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::params::{Init, ParamId, ParamLayout};
use crate::supernet::OwnWeights;

/// A value of the network under construction: `[n, c, h, w]`, or `[n, c]` after a global pooling, a flattening or a
/// linear layer. It belongs to the builder that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Value(usize);

/// Builds a [`Network`]. The first thing that does not fit, for example an image too small for a pooling, is kept and
/// comes out of [`NetworkBuilder::finish`], so that building needs no `?` at every step.
#[derive(Debug)]
pub struct NetworkBuilder {
    task: Task,
    pub(super) steps: Vec<Step>,
    params: ParamLayout,
    stats: ParamLayout,
    momentum: f64,
    eps: f64,
    /// Whether batch norms keep running statistics.
    pub(super) tracked: bool,
    pub(super) decisions: Decisions,
    /// Weights of the candidates of what was decided.
    pub(super) own: Vec<OwnWeights>,
    /// What the names of layers begin with.
    pub(super) scope: String,
    pub(super) error: Option<Error>,
}

impl NetworkBuilder {
    /// An empty network for a task, and its images.
    pub fn new(task: Task) -> (Self, Value) {
        let mut builder = Self {
            task,
            steps: vec![],
            params: ParamLayout::new(),
            stats: ParamLayout::new(),
            momentum: 0.1,
            eps: 1e-5,
            tracked: true,
            decisions: Decisions::Nothing,
            own: vec![],
            scope: String::new(),
            error: None,
        };
        let shape = [task.channels, task.height, task.width];
        if shape.iter().any(|&n| n < 1) || task.classes < 1 {
            builder.refuse(format!("a network for {task:?} can't be built"));
        }
        let images = builder.push(Op::Images, &[], shape.map(|n| n.max(1)), false);
        (builder, images)
    }

    /// How all batch norms behave: the weight of a new batch in the running statistics (0.1 unless set), and what is
    /// added to variances (1e-5 unless set).
    pub fn batch_norm_settings(&mut self, momentum: f64, eps: f64) {
        (self.momentum, self.eps) = (momentum, eps);
    }

    /// What the network is for.
    pub fn task(&self) -> Task {
        self.task
    }

    /// Channels, height, width; height and width of `[n, c]` are 1.
    pub fn shape(&self, v: Value) -> [i64; 3] {
        self.steps[v.0].shape
    }

    /// A convolution to `outputs` channels: parameters `name.weight` (`[outputs, inputs / groups, kh, kw]`) and, if
    /// asked for, `name.bias`.
    pub fn conv(&mut self, name: &str, x: Value, outputs: i64, conv: Conv) -> Value {
        let [channels, height, width] = self.image(name, x);
        let groups = conv.groups.max(1);
        if conv.groups < 1 || outputs < 1 || channels % groups != 0 || outputs % groups != 0 {
            self.refuse(format!(
                "convolution `{name}` from {channels} to {outputs} channels in {} groups",
                conv.groups
            ));
        }
        let [kh, kw] = conv.kernel;
        let size = |size: i64, axis: usize| {
            let reach = conv.dilation * (conv.kernel[axis] - 1) + 1;
            window(size, reach, conv.stride[axis], conv.padding[axis])
        };
        let (h, w) = (size(height, 0), size(width, 1));
        let shape = self.sized(name, outputs, [height, width], [h, w]);
        let inputs = channels / groups;
        let init = Init::fan_in(inputs * kh * kw);
        let kernels = [outputs, inputs, kh, kw].map(|n| n.max(1));
        let weight = self.param(name, "weight", &kernels, init);
        let bias = (conv.bias).then(|| self.param(name, "bias", &[outputs.max(1)], init));
        self.push(Op::Conv { weight, bias, conv }, &[x], shape, false)
    }

    /// Batch norm over the channels: running statistics `name.running_mean` and `name.running_var`, and, if affine, the
    /// parameters `name.weight` and `name.bias`. In a supernet there are running statistics where they are asked for;
    /// else it goes by the batch's in evaluation, too.
    pub fn batch_norm(&mut self, name: &str, x: Value, affine: bool) -> Value {
        let channels = [self.shape(x)[0]];
        let scale = affine.then(|| {
            [("weight", Init::Ones), ("bias", Init::Zeros)]
                .map(|(part, init)| self.param(name, part, &channels, init))
        });
        let running = self.tracked.then(|| {
            [("running_mean", Init::Zeros), ("running_var", Init::Ones)].map(|(part, init)| {
                let name = format!("{}{name}.{part}", self.scope);
                self.stats.add(name, &channels, init)
            })
        });
        self.like(Op::BatchNorm { scale, running }, x)
    }

    /// max(x, 0).
    pub fn relu(&mut self, x: Value) -> Value {
        self.like(Op::Relu, x)
    }

    /// Maximum over square windows; padding is never the maximum.
    pub fn max_pool(&mut self, x: Value, kernel: i64, stride: i64, padding: i64) -> Value {
        self.pool("max pooling", x, kernel, stride, padding, Op::MaxPool)
    }

    /// Mean over square windows; padding is not counted.
    pub fn avg_pool(&mut self, x: Value, kernel: i64, stride: i64, padding: i64) -> Value {
        self.pool("average pooling", x, kernel, stride, padding, Op::AvgPool)
    }

    /// Sum of values of one shape; one value is passed on as it is.
    pub fn add(&mut self, values: &[Value]) -> Value {
        match values {
            [x] => *x,
            _ => {
                let shape = self.joined("sum", values, |a, b| a == b);
                self.join(Op::Add, values, shape)
            }
        }
    }

    /// Values of one size with their channels one after another; one value is passed on as it is.
    pub fn concat(&mut self, values: &[Value]) -> Value {
        match values {
            [x] => *x,
            _ => {
                let [_, h, w] = self.joined("concatenation", values, |a, b| a[1..] == b[1..]);
                let channels = values.iter().map(|&v| self.shape(v)[0]).sum();
                self.join(Op::Concat, values, [channels, h, w])
            }
        }
    }

    /// `count` channels from `first` on; all of them are passed on as they are.
    pub fn channels(&mut self, x: Value, first: i64, count: i64) -> Value {
        let [channels, h, w] = self.shape(x);
        if (first, count) == (0, channels) {
            return x;
        }
        if first < 0 || count < 1 || first + count > channels {
            self.refuse(format!(
                "{count} channels from channel {first} on were asked of a value of {channels} channels"
            ));
        }
        let flat = self.steps[x.0].flat;
        self.push(
            Op::Channels { first, count },
            &[x],
            [count.max(1), h, w],
            flat,
        )
    }

    /// Everything one pixel up and to the left, with zeros at the bottom and the right: what the second convolution of
    /// DARTS' factorized reduction reads. The official code cuts the pixel off instead, which is the same for a 1×1
    /// convolution of stride 2 on even sizes and fails on odd ones.
    pub fn shift(&mut self, x: Value) -> Value {
        match self.image("shift", x) {
            [_, 1, _] | [.., 1] => self.zeros(x, 1),
            _ => self.like(Op::Shift, x),
        }
    }

    /// Zeros of the shape of `x` at every `stride`-th pixel.
    pub fn zeros(&mut self, x: Value, stride: i64) -> Value {
        self.strided("zeros", Op::Zeros, x, stride)
    }

    /// Fresh standard normal numbers of the shape of `x` at every `stride`-th pixel, in evaluation too (the operation
    /// `noise` of RobustDARTS' space S4).
    pub fn noise(&mut self, x: Value, stride: i64) -> Value {
        self.strided("noise", Op::Noise, x, stride)
    }

    /// In training, zero for a random part of the images and divided by the part that is left for the others, at the
    /// rate given to [`Network::forward`]; the identity in evaluation.
    pub fn drop_path(&mut self, x: Value) -> Value {
        self.like(Op::DropPath, x)
    }

    /// Mean over the pixels: `[n, c]`.
    pub fn global_average_pool(&mut self, x: Value) -> Value {
        let [channels, ..] = self.image("global average pooling", x);
        self.push(Op::GlobalAveragePool, &[x], [channels, 1, 1], true)
    }

    /// `[n, c · h · w]`; what is flat already is passed on.
    pub fn flatten(&mut self, x: Value) -> Value {
        if self.steps[x.0].flat {
            return x;
        }
        let numel = self.shape(x).iter().product();
        self.push(Op::Flatten, &[x], [numel, 1, 1], true)
    }

    /// A linear layer with bias, after [`Self::flatten`]: parameters `name.weight` (`[outputs, inputs]`) and
    /// `name.bias`.
    pub fn linear(&mut self, name: &str, x: Value, outputs: i64) -> Value {
        let x = self.flatten(x);
        let [inputs, ..] = self.shape(x);
        if outputs < 1 {
            self.refuse(format!("linear layer `{name}` to {outputs} outputs"));
        }
        let (init, outputs) = (Init::fan_in(inputs), outputs.max(1));
        let weight = self.param(name, "weight", &[outputs, inputs], init);
        let bias = self.param(name, "bias", &[outputs], init);
        self.push(Op::Linear { weight, bias }, &[x], [outputs, 1, 1], true)
    }

    /// The network with these logits (`[n, classes]`), and those of an auxiliary classifier for training.
    ///
    /// # Errors
    /// The first thing that did not fit: images too small for a window ([`Error::Incompatible`]); values that don't go
    /// together, names that occur twice, logits of another number than the task's classes, and an architecture that is open
    /// ([`Error::Invalid`]).
    pub fn finish(mut self, logits: Value, auxiliary: Option<Value>) -> Result<Network> {
        if self.decisions.are_open() {
            self.refuse("a network for all architectures is finished by `finish_open`".into());
        }
        for output in std::iter::once(logits).chain(auxiliary) {
            let (shape, flat) = (self.shape(output), self.steps[output.0].flat);
            if !flat || shape[0] != self.task.classes {
                self.refuse(format!(
                    "logits of shape {shape:?} for {} classes",
                    self.task.classes
                ));
            }
        }
        if !self.params.names_are_unique() || !self.stats.names_are_unique() {
            self.refuse("two layers have one name".into());
        }
        if let Some(error) = self.error {
            return Err(error);
        }
        let auxiliary = auxiliary.map(|v| v.0);
        let outputs: Vec<usize> = std::iter::once(logits.0).chain(auxiliary).collect();
        Ok(Network {
            main: Plan::new(&self.steps, &[logits.0]),
            training: Plan::new(&self.steps, &outputs),
            task: self.task,
            steps: self.steps,
            params: self.params,
            stats: self.stats,
            momentum: self.momentum,
            eps: self.eps,
            logits: logits.0,
            auxiliary,
        })
    }

    /// Parameters so far.
    pub(super) fn parameters(&self) -> &ParamLayout {
        &self.params
    }

    /// The images.
    pub(super) fn images(&self) -> Value {
        Value(0)
    }

    /// Whether a value is `[n, c]`.
    pub(super) fn is_flat(&self, v: Value) -> bool {
        self.steps[v.0].flat
    }

    /// The shape of what is written down, which is forgotten, and whether it is `[n, c]`.
    pub(super) fn shape_of(&mut self, write: impl FnOnce(&mut Self) -> Value) -> ([i64; 3], bool) {
        let (steps, params, stats) = (self.steps.clone(), self.params.clone(), self.stats.clone());
        let value = write(self);
        let found = (self.shape(value), self.is_flat(value));
        self.steps = steps;
        (self.params, self.stats) = (params, stats);
        found
    }

    /// A parameter of a layer.
    fn param(&mut self, layer: &str, part: &str, shape: &[i64], init: Init) -> ParamId {
        let name = format!("{}{layer}.{part}", self.scope);
        self.params.add(name, shape, init)
    }

    /// Appends a step, or finds the same one: layers that begin with a ReLU of one state share it.
    pub(super) fn push(&mut self, op: Op, inputs: &[Value], shape: [i64; 3], flat: bool) -> Value {
        let step = Step {
            op,
            inputs: inputs.iter().map(|v| v.0).collect(),
            shape,
            flat,
            times: 1,
        };
        if step.op.is_pure() {
            let after = step.inputs.iter().max().map_or(0, |input| input + 1);
            let same = |s: &Step| (&s.op, &s.inputs) == (&step.op, &step.inputs);
            if let Some(same) = self.steps[after..].iter().position(same) {
                self.steps[after + same].times += 1;
                return Value(after + same);
            }
        }
        self.steps.push(step);
        Value(self.steps.len() - 1)
    }

    /// A step with the shape of its only input.
    fn like(&mut self, op: Op, x: Value) -> Value {
        self.push(op, &[x], self.shape(x), self.steps[x.0].flat)
    }

    fn join(&mut self, op: Op, values: &[Value], shape: [i64; 3]) -> Value {
        let flat = values.first().is_some_and(|v| self.steps[v.0].flat);
        self.push(op, values, shape, flat)
    }

    fn pool(
        &mut self,
        what: &str,
        x: Value,
        kernel: i64,
        stride: i64,
        padding: i64,
        op: fn(Pool) -> Op,
    ) -> Value {
        let [channels, height, width] = self.image(what, x);
        if kernel < 1 || stride < 1 || padding < 0 || 2 * padding > kernel {
            self.refuse(format!(
                "{what} with kernel {kernel}, stride {stride} and padding {padding}"
            ));
        }
        let size = |size| window(size, kernel, stride, padding);
        let shape = self.sized(
            &format!("{kernel}×{kernel} {what}"),
            channels,
            [height, width],
            [size(height), size(width)],
        );
        let pool = Pool {
            kernel,
            stride,
            padding,
        };
        self.push(op(pool), &[x], shape, false)
    }

    fn strided(&mut self, what: &str, op: Op, x: Value, stride: i64) -> Value {
        let [channels, height, width] = self.image(what, x);
        let size = |size| window(size, 1, stride, 0);
        let shape = self.sized(what, channels, [height, width], [size(height), size(width)]);
        self.push(op, &[], shape, false)
    }

    /// The shape of a value that must be an image.
    fn image(&mut self, what: &str, x: Value) -> [i64; 3] {
        if self.steps[x.0].flat {
            self.refuse(format!("`{what}` needs an image, but gets [n, c]"));
        }
        self.shape(x)
    }

    /// The shape after a window slid over an image, if it fits.
    fn sized(
        &mut self,
        what: &str,
        channels: i64,
        [height, width]: [i64; 2],
        after: [Option<i64>; 2],
    ) -> [i64; 3] {
        if let [Some(h), Some(w)] = after {
            return [channels.max(1), h, w];
        }
        if self.error.is_none() {
            self.error = Some(Error::Incompatible {
                what: format!("images of {}×{} pixels", self.task.height, self.task.width),
                why: format!(
                    "they are too small for this network: only {height}×{width} pixels are left where `{what}` is"
                ),
                help: "take a dataset of larger images, or a network that reduces them less".into(),
            });
        }
        [channels.max(1), 1, 1]
    }

    /// The shape of the first of several values that must go together.
    pub(super) fn joined(
        &mut self,
        what: &str,
        values: &[Value],
        fit: impl Fn([i64; 3], [i64; 3]) -> bool,
    ) -> [i64; 3] {
        let Some(&first) = values.first() else {
            self.refuse(format!("a {what} of nothing"));
            return [1; 3];
        };
        let (shape, flat) = (self.shape(first), self.steps[first.0].flat);
        for &v in values {
            if !fit(shape, self.shape(v)) || self.steps[v.0].flat != flat {
                self.refuse(format!(
                    "a {what} of shapes {shape:?} and {:?}",
                    self.shape(v)
                ));
            }
        }
        shape
    }

    /// Keeps the first error.
    pub(super) fn refuse(&mut self, why: String) {
        if self.error.is_none() {
            self.error = Some(Error::Invalid {
                what: "network".into(),
                why,
            });
        }
    }
}

/// How often a window fits, if it does.
fn window(size: i64, reach: i64, stride: i64, padding: i64) -> Option<i64> {
    let room = size + 2 * padding - reach;
    (room >= 0 && stride >= 1 && reach >= 1 && padding >= 0).then(|| room / stride + 1)
}
