//! Chains of layers, carried out for many edges at once.

use std::collections::BTreeMap;

use nasfw_framework::network::{Conv, average_pool, convolution};
use nasfw_framework::observe;
use nasfw_framework::prelude::*;
use nasfw_kernels::fused;
use tch::Tensor;

use super::skeleton::Chain;
use crate::layers::{ConvLayer, Layer};
use crate::ops::{self, BatchNorm, Builder, Pass};

/// Weight of a new batch in running statistics.
const MOMENTUM: f64 = 0.1;

/// The input of a source's candidates, with what several of them need made once.
pub(super) struct Input {
    x: Tensor,
    relu: Option<Tensor>,
    /// Copies of the rectified input, side by side.
    copies: BTreeMap<i64, Tensor>,
}

impl Input {
    pub fn new(x: &Tensor) -> Self {
        Self {
            x: x.shallow_clone(),
            relu: None,
            copies: BTreeMap::new(),
        }
    }

    fn relu(&mut self) -> Tensor {
        let x = &self.x;
        self.relu.get_or_insert_with(|| x.relu()).shallow_clone()
    }
}

/// What flows through a candidate: one tensor for all edges, or the edges' side by side.
pub(super) enum Flow {
    Shared(Tensor),
    Batched(Tensor),
}

impl Flow {
    fn map(self, f: impl FnOnce(Tensor) -> Tensor) -> Self {
        match self {
            Self::Shared(x) => Self::Shared(f(x)),
            Self::Batched(x) => Self::Batched(f(x)),
        }
    }
}

/// A chain of layers for a number of edges at once; one edge makes a plain chain.
pub(super) struct Layers {
    name: String,
    steps: Vec<Step>,
    edges: i64,
}

enum Step {
    Relu,
    /// A convolution: weight, bias, and how to carry it out.
    Conv(ParamId, Option<ParamId>, ConvLayer),
    /// Weights of the two halves.
    FactorizedReduce(ParamId, ParamId),
    /// Batch norm over this many channels an edge.
    Norm(BatchNorm, i64),
    MaxPool(i64),
    AvgPool(i64),
    Halve,
}

impl Layers {
    pub fn one(b: &mut Builder, chain: &Chain) -> Self {
        Self::new(b, &chain.name, &chain.layers, chain.inputs, 1)
    }

    pub fn new(b: &mut Builder, name: &str, layers: &[Layer], inputs: i64, edges: i64) -> Self {
        let mut channels = inputs;
        // Before the first layer with weights there is one tensor for all edges.
        let mut batched = 1;
        let steps = layers
            .iter()
            .enumerate()
            .filter_map(|(i, layer)| {
                let name = format!("{name}.{i}");
                Some(match *layer {
                    Layer::Relu => Step::Relu,
                    Layer::Conv(c) => {
                        batched = edges;
                        let fan = if c.depthwise { 1 } else { channels };
                        channels = c.outputs;
                        let init = Init::fan_in(fan * c.kernel[0] * c.kernel[1]);
                        let shape = [edges * c.outputs, fan, c.kernel[0], c.kernel[1]];
                        let weight = b.params.add(format!("{name}.weight"), &shape, init);
                        let bias = c.bias.then(|| {
                            let shape = [edges * c.outputs];
                            b.params.add(format!("{name}.bias"), &shape, init)
                        });
                        Step::Conv(weight, bias, c)
                    }
                    Layer::FactorizedReduce { outputs } => {
                        batched = edges;
                        let init = Init::fan_in(channels);
                        let shape = [edges * outputs / 2, channels, 1, 1];
                        channels = outputs;
                        let mut half =
                            |part| b.params.add(format!("{name}.{part}.weight"), &shape, init);
                        Step::FactorizedReduce(half("first"), half("second"))
                    }
                    Layer::BatchNorm { affine } => Step::Norm(
                        BatchNorm::new(b, &name, batched * channels, affine, MOMENTUM),
                        channels,
                    ),
                    Layer::MaxPool { stride } => Step::MaxPool(stride),
                    Layer::AvgPool { stride } => Step::AvgPool(stride),
                    Layer::Halve => Step::Halve,
                    // Has no input and no weights; the cell makes it.
                    Layer::Noise { .. } => return None,
                })
            })
            .collect();
        Self {
            name: name.into(),
            steps,
            edges,
        }
    }

    /// A plain chain.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Tensor {
        match self.batched(pass, &mut Input::new(x), &[0], None) {
            Flow::Shared(y) | Flow::Batched(y) => y,
        }
    }

    /// The weights of the edge at a position. Batch norms of candidates learn none.
    pub fn stretches(&self, params: &ParamLayout, position: usize) -> Vec<Stretch> {
        let ids = self.steps.iter().flat_map(|step| match step {
            Step::Conv(weight, bias, _) => [Some(*weight), *bias],
            Step::FactorizedReduce(first, second) => [Some(*first), Some(*second)],
            _ => [None, None],
        });
        ids.flatten()
            .map(|id| params.stretch(id, position as i64, self.edges))
            .collect()
    }

    /// The edges at `positions`. `weights` (`[positions]`) multiply what comes out batched, as the scale of the batch
    /// norm that every candidate with weights of its own ends with; what comes out shared is left to the caller to
    /// multiply.
    pub fn batched(
        &self,
        pass: &Pass,
        input: &mut Input,
        positions: &[usize],
        weights: Option<&Tensor>,
    ) -> Flow {
        self.run(&self.steps, pass, input, positions, weights)
    }

    /// Adds what [`Layers::batched`] gives, each edge's times its weight, to the nodes where the edges end, in fewer
    /// passes over memory.
    ///
    /// # Errors
    /// Those of [`fused`].
    pub fn fused(
        &self,
        pass: &Pass,
        input: &mut Input,
        positions: &[usize],
        weights: &Tensor,
        channels: i64,
        nodes: &mut [&mut Option<Tensor>],
    ) -> Result<()> {
        if let Some(stages) = self.separable() {
            let part = self.part(positions, channels);
            let pick = |id: ParamId| ops::pick(&pass.params[id], &part);
            let stages: Vec<fused::Stage> = stages
                .into_iter()
                .map(|(depthwise, pointwise, c)| fused::Stage {
                    depthwise: pick(depthwise),
                    pointwise: pick(pointwise),
                    stride: c.stride[0],
                    dilation: c.dilation,
                })
                .collect();
            return Ok(fused::separable(&input.x, &stages, weights, nodes)?);
        }
        let (steps, norm) = match self.steps.split_last() {
            Some((Step::Norm(norm, c), steps)) => {
                let part = self.part(positions, *c);
                (steps, norm.fused(pass, &part))
            }
            _ => (self.steps.as_slice(), fused::Norm::None),
        };
        let (Flow::Shared(y) | Flow::Batched(y)) = self.run(steps, pass, input, positions, None);
        Ok(fused::blend(&y, &norm, false, channels, weights, nodes)?)
    }

    /// Depthwise and pointwise weights of every stage, if the layers are what [`fused::separable`] computes.
    fn separable(&self) -> Option<Vec<(ParamId, ParamId, ConvLayer)>> {
        let stage = |steps: &[Step]| match steps {
            [
                Step::Relu,
                Step::Conv(depthwise, None, d),
                Step::Conv(pointwise, None, p),
                Step::Norm(norm, _),
            ] => {
                let fits = d.depthwise
                    && d.outputs == p.outputs
                    && matches!(d.kernel, [3, 3] | [5, 5] | [7, 7])
                    && matches!(d.stride, [1, 1] | [2, 2])
                    && matches!(d.dilation, 1 | 2)
                    && (p.kernel, p.stride, p.depthwise) == ([1, 1], [1, 1], false)
                    && !norm.is_affine();
                fits.then_some((*depthwise, *pointwise, *d))
            }
            _ => None,
        };
        let stages = self.steps.chunks(4).map(stage).collect::<Option<Vec<_>>>();
        stages.filter(|s| (1..=2).contains(&s.len()))
    }

    /// The rows of the edges at `positions` in a tensor of so many rows an edge: first and count.
    fn part(&self, positions: &[usize], per_edge: i64) -> Vec<(i64, i64)> {
        ops::ranges(positions, per_edge)
    }

    fn run(
        &self,
        steps: &[Step],
        pass: &Pass,
        input: &mut Input,
        positions: &[usize],
        weights: Option<&Tensor>,
    ) -> Flow {
        let count = positions.len() as i64;
        let part = |per_edge: i64| self.part(positions, per_edge);
        let pick = |id: ParamId, per_edge: i64| ops::pick(&pass.params[id], &part(per_edge));
        let mut flow = Flow::Shared(input.x.shallow_clone());
        for (i, step) in steps.iter().enumerate() {
            let is_last = i + 1 == steps.len();
            flow = match (step, flow) {
                (Step::Relu, flow) if observe::is_on() => {
                    let times = match flow {
                        Flow::Shared(_) => count,
                        Flow::Batched(_) => 1,
                    };
                    let name = || format!("{}.{i}", self.name);
                    flow.map(|x| observe::relu_input(&x, times, name).relu())
                }
                (Step::Relu, Flow::Shared(_)) if i == 0 => Flow::Shared(input.relu()),
                (Step::Relu, flow) => flow.map(|x| x.relu()),
                (Step::Conv(weight, bias, c), flow) => {
                    let (x, groups) = match flow {
                        Flow::Batched(x) => (x, count),
                        // What is observed is not shared among candidates.
                        Flow::Shared(x) if c.depthwise && count > 1 && observe::is_on() => {
                            (side_by_side(&x, count), count)
                        }
                        Flow::Shared(x) if c.depthwise && count > 1 => {
                            let copies = input.copies.entry(count);
                            let x = copies.or_insert_with(|| side_by_side(&x, count));
                            (x.shallow_clone(), count)
                        }
                        Flow::Shared(x) => (x, 1),
                    };
                    let groups = if c.depthwise { x.size()[1] } else { groups };
                    let bias = bias.map(|b| pick(b, c.outputs));
                    let conv = Conv {
                        kernel: c.kernel,
                        stride: c.stride,
                        padding: c.padding(),
                        dilation: c.dilation,
                        groups,
                        bias: bias.is_some(),
                    };
                    let weight = pick(*weight, c.outputs);
                    Flow::Batched(convolution(&x, &weight, bias.as_ref(), &conv))
                }
                (Step::FactorizedReduce(first, second), Flow::Shared(x) | Flow::Batched(x)) => {
                    // The second half reads one pixel further on; beyond the edge of an odd size there is zero.
                    let shifted = x.constant_pad_nd([0, 1, 0, 1]);
                    let shifted = shifted.slice(2, 1, None, 1).slice(3, 1, None, 1);
                    let conv = Conv::same(1).stride(2);
                    let half = |x: &Tensor, id: ParamId| {
                        let per_edge = pass.params[id].size()[0] / self.edges;
                        let weight = pick(id, per_edge);
                        let y = convolution(x, &weight, None, &conv);
                        let s = y.size();
                        y.permute([0, 2, 3, 1])
                            .reshape([s[0], s[2], s[3], count, per_edge])
                    };
                    let y = Tensor::cat(&[half(&x, *first), half(&shifted, *second)], 4);
                    let s = y.size();
                    let y = y.reshape([s[0], s[1], s[2], s[3] * s[4]]);
                    Flow::Batched(y.permute([0, 3, 1, 2]))
                }
                (Step::Norm(norm, channels), Flow::Batched(x)) => {
                    let scale = weights.filter(|_| is_last).map(|w| {
                        let each = w.unsqueeze(1).expand([count, *channels], false);
                        // libtorch's batch norm reads an expanded scale beyond its end.
                        each.reshape([-1]).contiguous()
                    });
                    let part = part(*channels);
                    Flow::Batched(norm.forward_scaled(pass, &x, &part, scale.as_ref()))
                }
                (Step::Norm(norm, _), Flow::Shared(x)) => Flow::Shared(norm.forward(pass, &x)),
                (Step::MaxPool(s), flow) => {
                    flow.map(|x| x.max_pool2d([3, 3], [*s, *s], [1, 1], [1, 1], false))
                }
                (Step::AvgPool(s), flow) => flow.map(|x| average_pool(&x, 3, *s, 1)),
                (Step::Halve, flow) => flow.map(|x| average_pool(&x, 2, 2, 0)),
            };
        }
        flow
    }
}

/// `count` copies of `x` along the channels, in its memory format, which `Tensor::repeat` would change.
fn side_by_side(x: &Tensor, count: i64) -> Tensor {
    let x = x.permute([0, 2, 3, 1]).unsqueeze(3);
    let s = x.size();
    x.expand([s[0], s[1], s[2], count, s[4]], false)
        .reshape([s[0], s[1], s[2], count * s[4]])
        .permute([0, 3, 1, 2])
}
