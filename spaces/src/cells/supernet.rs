//! The weight-sharing network of a cell space.
//!
//! All edges that leave one state run as one batched operation per candidate: convolutions and batch norms over
//! edges × channels, poolings and the identity once for all edges. The architecture's weight is the scale of a
//! candidate's last batch norm. Nothing that is masked, or leads nowhere, is computed.

use std::collections::BTreeMap;
use std::sync::Arc;

use nasfw_framework::prelude::*;
use nasfw_framework::rng;
use nasfw_framework::supernet::BatchNormStats;
use tch::Tensor;

use super::CellType;
use super::skeleton::{Block, Chain, Plan};
use crate::layers::{Layer, Op, Role};
use crate::ops::{BatchNorm, Builder, Classifier, Pass, channels_last};

/// Weight of a new batch in running statistics.
const MOMENTUM: f64 = 0.1;

/// The candidates of the edges that leave a state, except `none`: operation and edges.
type Candidates = Vec<(Op, Vec<usize>)>;

/// A network that holds all candidates of a cell space.
pub(super) struct CellSupernet {
    types: Arc<Vec<CellType>>,
    params: ParamLayout,
    stats: ParamLayout,
    stem: Vec<Layers>,
    blocks: Vec<Trunk>,
    last: Layers,
    classifier: Classifier,
    /// Per cell type and source.
    sources: Vec<Vec<Candidates>>,
}

enum Trunk {
    Cell(CellNet),
    Residual(Layers, Layers),
}

struct CellNet {
    kind: usize,
    channels: i64,
    reduce: bool,
    inputs: Vec<Option<Layers>>,
    /// Layers of every candidate of every source, in the order of [`CellSupernet::sources`].
    candidates: Vec<Vec<Layers>>,
}

impl CellSupernet {
    pub fn new(
        types: Arc<Vec<CellType>>,
        plan: &Plan,
        role: Role,
        batch_norm: BatchNormStats,
    ) -> Self {
        let mut b = Builder::new(batch_norm);
        let sources: Vec<_> = types.iter().map(sources).collect();
        let stem = plan.stem.iter().map(|c| Layers::one(&mut b, c)).collect();
        let blocks = plan
            .blocks
            .iter()
            .map(|block| match block {
                Block::Residual(main, shortcut) => {
                    Trunk::Residual(Layers::one(&mut b, main), Layers::one(&mut b, shortcut))
                }
                Block::Cell {
                    name,
                    kind,
                    channels,
                    reduce,
                    inputs,
                    ..
                } => {
                    let fit = |c: &Option<Chain>| c.as_ref().map(|c| Layers::one(&mut b, c));
                    let inputs = inputs.iter().map(fit).collect();
                    let candidates = sources[*kind].iter().enumerate().map(|(s, source)| {
                        let stride = stride(*reduce, s, types[*kind].inputs);
                        let candidates = source.iter().map(|(op, edges)| {
                            let layers = op.layers(*channels, stride, role);
                            let name = format!("{name}.from{s}.{}", op.name());
                            Layers::new(&mut b, &name, &layers, *channels, edges.len() as i64)
                        });
                        candidates.collect()
                    });
                    Trunk::Cell(CellNet {
                        kind: *kind,
                        channels: *channels,
                        reduce: *reduce,
                        candidates: candidates.collect(),
                        inputs,
                    })
                }
            })
            .collect();
        let last = Layers::one(&mut b, &plan.last);
        let classifier = Classifier::new(&mut b, "classifier", plan.last.inputs, plan.task.classes);
        Self {
            types,
            params: b.params,
            stats: b.stats,
            stem,
            blocks,
            last,
            classifier,
            sources,
        }
    }
}

/// The candidates of every state.
fn sources(cell: &CellType) -> Vec<Candidates> {
    (0..cell.states())
        .map(|s| {
            let mut candidates: BTreeMap<Op, Vec<usize>> = BTreeMap::new();
            for (e, edge) in cell.edges.iter().enumerate().filter(|(_, e)| e.from == s) {
                for &op in edge.candidates.iter().filter(|op| **op != Op::None) {
                    candidates.entry(op).or_default().push(e);
                }
            }
            candidates.into_iter().collect()
        })
        .collect()
}

/// Stride of the edges that leave state `s`.
fn stride(reduce: bool, s: usize, inputs: usize) -> i64 {
    if reduce && s < inputs { 2 } else { 1 }
}

impl Supernet for CellSupernet {
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
        noise: Streams,
    ) -> Result<Tensor> {
        let pass = Builder::pass(&self.params, &self.stats, weights, mode);
        let mixes: Vec<Mix> = self
            .types
            .iter()
            .zip(&self.sources)
            .enumerate()
            .map(|(g, (cell, sources))| Mix::of(cell, sources, arch, g))
            .collect();
        // Images of one channel don't tell their memory format, so the first output is converted; the rest follows.
        let mut states: Vec<Tensor> = Vec::new();
        for stem in &self.stem {
            let x = stem.forward(&pass, states.last().unwrap_or(images));
            states.push(channels_last(&x));
        }
        if let [only] = states.as_slice() {
            states.push(only.shallow_clone());
        }
        for (i, block) in self.blocks.iter().enumerate() {
            let x = match block {
                Trunk::Residual(main, shortcut) => {
                    let x = &states[states.len() - 1];
                    main.forward(&pass, x) + shortcut.forward(&pass, x)
                }
                Trunk::Cell(cell) => {
                    let inputs = &states[states.len() - cell.inputs.len()..];
                    let noise = noise.child("cell", i as u64);
                    cell.forward(
                        &pass,
                        &self.types[cell.kind],
                        inputs,
                        &mixes[cell.kind],
                        noise,
                    )
                }
            };
            states.push(x);
            // What no later block reads is let go.
            states.drain(..states.len() - 2);
        }
        let x = self.last.forward(&pass, &states[states.len() - 1]);
        Ok(self.classifier.forward(&pass, &x))
    }
}

/// Positions among a candidate's edges, and their weights (`[positions]`).
type Active = (Vec<usize>, Tensor);

/// What an architecture computes in all cells of one type.
struct Mix {
    /// Per source and candidate; none where it is not computed.
    active: Vec<Vec<Option<Active>>>,
}

impl Mix {
    fn of(cell: &CellType, sources: &[Candidates], arch: &RelaxedArch, g: usize) -> Self {
        let column = |e: usize, op: Op| cell.edges[e].candidates.iter().position(|c| *c == op);
        let on = |e: usize, op: Op| column(e, op).is_some_and(|c| arch.is_active(g, e, c));
        // States that lead to the output through active edges.
        let mut needed = vec![false; cell.states()];
        for state in cell.output_states() {
            needed[state] = true;
        }
        for (e, edge) in cell.edges.iter().enumerate().rev() {
            let carries = |op: &&Op| **op != Op::None && on(e, **op);
            if needed[edge.to] && edge.candidates.iter().any(|op| carries(&op)) {
                needed[edge.from] = true;
            }
        }
        let width = arch.weights[g].size()[1];
        let mut index: Vec<i64> = Vec::new();
        let mut counts: Vec<i64> = Vec::new();
        let positions: Vec<Vec<Vec<usize>>> = sources
            .iter()
            .map(|source| {
                source
                    .iter()
                    .map(|(op, edges)| {
                        let wanted = |e: usize| needed[cell.edges[e].to] && on(e, *op);
                        let positions: Vec<usize> =
                            (0..edges.len()).filter(|&i| wanted(edges[i])).collect();
                        index.extend(positions.iter().filter_map(|&i| {
                            Some(edges[i] as i64 * width + column(edges[i], *op)? as i64)
                        }));
                        counts.push(positions.len() as i64);
                        positions
                    })
                    .collect()
            })
            .collect();
        let weights = &arch.weights[g];
        let index = Tensor::from_slice(&index).to_device(weights.device());
        let mut parts = weights
            .reshape([-1])
            .index_select(0, &index)
            .split_with_sizes(counts, 0)
            .into_iter();
        let active = positions
            .into_iter()
            .map(|source| {
                source
                    .into_iter()
                    .map(|positions| {
                        let weights = parts.next()?;
                        (!positions.is_empty()).then_some((positions, weights))
                    })
                    .collect()
            })
            .collect();
        Self { active }
    }
}

impl CellNet {
    /// The cell's output `[n, outputs × channels, h, w]` from the outputs of earlier cells.
    fn forward(
        &self,
        pass: &Pass,
        cell: &CellType,
        inputs: &[Tensor],
        mix: &Mix,
        noise: Streams,
    ) -> Tensor {
        let sources = sources(cell);
        let mut states: Vec<Option<Tensor>> = inputs
            .iter()
            .zip(&self.inputs)
            .map(|(x, fit)| {
                Some(match fit {
                    Some(fit) => fit.forward(pass, x),
                    None => x.shallow_clone(),
                })
            })
            .collect();
        states.resize_with(cell.states(), || None);
        let mut zero = None;
        for s in 0..cell.states() {
            if mix.active[s].iter().all(Option::is_none) {
                continue;
            }
            let x = match &states[s] {
                Some(x) => x.shallow_clone(),
                None => self.zeros(&states, &mut zero),
            };
            let stride = stride(self.reduce, s, cell.inputs);
            for (e, y) in self.source(pass, s, &sources[s], &x, stride, mix, noise) {
                let to = cell.edges[e].to;
                states[to] = Some(match states[to].take() {
                    Some(sum) => sum + y,
                    None => y,
                });
            }
        }
        let outputs: Vec<Tensor> = cell
            .output_states()
            .into_iter()
            .map(|s| match &states[s] {
                Some(x) => x.shallow_clone(),
                None => self.zeros(&states, &mut zero),
            })
            .collect();
        match outputs.as_slice() {
            [only] => only.shallow_clone(),
            all => Tensor::cat(all, 1),
        }
    }

    /// What a node without inputs holds.
    fn zeros(&self, states: &[Option<Tensor>], zero: &mut Option<Tensor>) -> Tensor {
        let make = || {
            let like = states[0].as_ref().map(Tensor::size).unwrap_or_default();
            let halved = |n: i64| if self.reduce { (n + 1) / 2 } else { n };
            let (n, h, w) = (like[0], halved(like[2]), halved(like[3]));
            let options = states[0].as_ref().map(|x| (x.kind(), x.device()));
            let options = options.unwrap_or((tch::Kind::Float, tch::Device::Cpu));
            channels_last(&Tensor::zeros([n, self.channels, h, w], options))
        };
        zero.get_or_insert_with(make).shallow_clone()
    }

    /// Weighted sums over the candidates of every active edge that leaves state `s`: edge and `[n, channels, h, w]`.
    #[allow(clippy::too_many_arguments)]
    fn source(
        &self,
        pass: &Pass,
        s: usize,
        candidates: &Candidates,
        x: &Tensor,
        stride: i64,
        mix: &Mix,
        noise: Streams,
    ) -> Vec<(usize, Tensor)> {
        let mut input = Input::new(x);
        // Sums over candidates with the same edges, `[n, h, w, edges, channels]`.
        let mut sums: BTreeMap<Vec<usize>, Tensor> = BTreeMap::new();
        for ((op, edges), (layers, active)) in candidates
            .iter()
            .zip(self.candidates[s].iter().zip(&mix.active[s]))
        {
            let Some((positions, weights)) = active else {
                continue;
            };
            let edges: Vec<usize> = positions.iter().map(|&i| edges[i]).collect();
            let count = edges.len() as i64;
            let sum = sums.remove(&edges);
            let y = if *op == Op::Noise {
                let size = x.size();
                let half = |n: i64| (n + stride - 1) / stride;
                let shape = [size[0], half(size[2]), half(size[3]), size[1]];
                let draw = |e: &usize| {
                    let rng = &mut noise.at("noise", *e as u64);
                    rng::normal(rng, &shape, x.kind(), x.device())
                };
                let z = Tensor::stack(&edges.iter().map(draw).collect::<Vec<_>>(), 3);
                weighted(sum, &z, weights)
            } else {
                match layers.batched(pass, &mut input, positions, Some(weights)) {
                    Flow::Shared(z) => {
                        weighted(sum, &z.permute([0, 2, 3, 1]).unsqueeze(3), weights)
                    }
                    Flow::Batched(y) => {
                        let size = y.size();
                        let y = y.permute([0, 2, 3, 1]).reshape([
                            size[0],
                            size[2],
                            size[3],
                            count,
                            self.channels,
                        ]);
                        match sum {
                            Some(sum) => sum + y,
                            None => y,
                        }
                    }
                }
            };
            sums.insert(edges, y);
        }
        sums.into_iter()
            .flat_map(|(edges, sum)| {
                let parts = sum.unbind(3).into_iter();
                edges
                    .into_iter()
                    .zip(parts.map(|p| p.permute([0, 3, 1, 2])))
            })
            .collect()
    }
}

/// `sum + z·w`, for `z` of one edge or all, `[n, h, w, 1 or edges, channels]`, and `w` `[edges]`.
fn weighted(sum: Option<Tensor>, z: &Tensor, weights: &Tensor) -> Tensor {
    let w = weights.view([-1, 1]);
    match sum {
        Some(sum) => sum.addcmul(z, &w),
        None => z * w,
    }
}

/// The input of a source's candidates, with what several of them need made once.
struct Input {
    x: Tensor,
    relu: Option<Tensor>,
    /// Copies of the rectified input, side by side.
    copies: BTreeMap<i64, Tensor>,
}

impl Input {
    fn new(x: &Tensor) -> Self {
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
enum Flow {
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
struct Layers {
    steps: Vec<Step>,
    edges: i64,
}

enum Step {
    Relu,
    /// A convolution: weight, bias, and how to carry it out.
    Conv(ParamId, Option<ParamId>, crate::layers::ConvLayer),
    /// Weights of the two halves.
    FactorizedReduce(ParamId, ParamId),
    /// Batch norm over this many channels an edge.
    Norm(BatchNorm, i64),
    MaxPool(i64),
    AvgPool(i64),
    Halve,
}

impl Layers {
    fn one(b: &mut Builder, chain: &Chain) -> Self {
        Self::new(b, &chain.name, &chain.layers, chain.inputs, 1)
    }

    fn new(b: &mut Builder, name: &str, layers: &[Layer], inputs: i64, edges: i64) -> Self {
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
        Self { steps, edges }
    }

    /// A plain chain.
    fn forward(&self, pass: &Pass, x: &Tensor) -> Tensor {
        match self.batched(pass, &mut Input::new(x), &[0], None) {
            Flow::Shared(y) | Flow::Batched(y) => y,
        }
    }

    /// The edges at `positions`. `weights` (`[positions]`) multiply what comes out batched; what comes out shared is
    /// left to the caller to multiply.
    fn batched(
        &self,
        pass: &Pass,
        input: &mut Input,
        positions: &[usize],
        weights: Option<&Tensor>,
    ) -> Flow {
        let count = positions.len() as i64;
        let part = |per_edge: i64| -> Vec<(i64, i64)> {
            if count == self.edges {
                return vec![(0, self.edges * per_edge)];
            }
            ranges(positions)
                .into_iter()
                .map(|(first, n)| (first * per_edge, n * per_edge))
                .collect()
        };
        let pick = |id: ParamId, per_edge: i64| crate::ops::pick(&pass.params[id], &part(per_edge));
        let folded = matches!(self.steps.last(), Some(Step::Norm(..)));
        let mut flow = Flow::Shared(input.x.shallow_clone());
        for (i, step) in self.steps.iter().enumerate() {
            let is_last = i + 1 == self.steps.len();
            flow = match (step, flow) {
                (Step::Relu, Flow::Shared(_)) if i == 0 => Flow::Shared(input.relu()),
                (Step::Relu, flow) => flow.map(|x| x.relu()),
                (Step::Conv(weight, bias, c), flow) => {
                    let (x, groups) = match flow {
                        Flow::Batched(x) => (x, count),
                        Flow::Shared(x) if c.depthwise && count > 1 => {
                            let copies = input.copies.entry(count);
                            let x = copies.or_insert_with(|| side_by_side(&x, count));
                            (x.shallow_clone(), count)
                        }
                        Flow::Shared(x) => (x, 1),
                    };
                    let groups = if c.depthwise { x.size()[1] } else { groups };
                    let bias = bias.map(|b| pick(b, c.outputs));
                    Flow::Batched(x.conv2d(
                        &pick(*weight, c.outputs),
                        bias.as_ref(),
                        c.stride,
                        c.padding(),
                        [c.dilation; 2],
                        groups,
                    ))
                }
                (Step::FactorizedReduce(first, second), Flow::Shared(x) | Flow::Batched(x)) => {
                    // The second half reads one pixel further on; beyond the edge of an odd size there is zero.
                    let shifted = x.constant_pad_nd([0, 1, 0, 1]);
                    let shifted = shifted.slice(2, 1, None, 1).slice(3, 1, None, 1);
                    let half = |x: &Tensor, id: ParamId| {
                        let per_edge = pass.params[id].size()[0] / self.edges;
                        let weight = pick(id, per_edge);
                        let y = x.conv2d::<Tensor>(&weight, None, [2, 2], [0, 0], [1, 1], 1);
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
                    let scale = weights.filter(|_| is_last && folded).map(|w| {
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
                (Step::AvgPool(s), flow) => {
                    flow.map(|x| x.avg_pool2d([3, 3], [*s, *s], [1, 1], false, false, None))
                }
                (Step::Halve, flow) => {
                    flow.map(|x| x.avg_pool2d([2, 2], [2, 2], [0, 0], false, false, None))
                }
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

/// Runs of consecutive positions: first and length.
fn ranges(positions: &[usize]) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for &p in positions {
        match ranges.last_mut() {
            Some((first, n)) if *first + *n == p as i64 => *n += 1,
            _ => ranges.push((p as i64, 1)),
        }
    }
    ranges
}
