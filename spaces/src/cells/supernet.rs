//! The weight-sharing network of a cell space.
//!
//! All edges that leave one state run as one batched operation per candidate: convolutions and batch norms over
//! edges × channels, poolings and the identity once for all edges. Nothing that is masked, or leads nowhere, is
//! computed. On CPUs fused kernels do most of the work; elsewhere, and with running statistics, libtorch's own
//! operators, where the architecture's weight is the scale of a candidate's last batch norm.

use std::collections::BTreeMap;
use std::sync::Arc;

use nasfw_framework::prelude::*;
use nasfw_framework::rng;
use nasfw_framework::supernet::BatchNormStats;
use nasfw_kernels::fused;
use tch::Tensor;

use super::CellType;
use super::chain::{Flow, Input, Layers};
use super::skeleton::{Block, Chain, Plan};
use crate::layers::{Op, Role};
use crate::ops::{Builder, Classifier, Pass, channels_last};

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
    fused: bool,
    inputs: Vec<Option<Layers>>,
    /// Layers of every candidate of every source, in the order of [`CellSupernet::sources`].
    candidates: Vec<Vec<Layers>>,
}

impl CellSupernet {
    pub fn new(
        types: Arc<Vec<CellType>>,
        plan: &Plan,
        role: Role,
        options: &SupernetOptions,
    ) -> Self {
        let mut b = Builder::new(options.batch_norm);
        let fused = !options.plain && options.batch_norm == BatchNormStats::Batch;
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
                        fused,
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
                    cell.forward(&pass, inputs, &mixes[cell.kind], noise)?
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
struct Mix<'a> {
    cell: &'a CellType,
    sources: &'a [Candidates],
    /// Per source and candidate; none where it is not computed.
    active: Vec<Vec<Option<Active>>>,
}

impl<'a> Mix<'a> {
    fn of(cell: &'a CellType, sources: &'a [Candidates], arch: &RelaxedArch, g: usize) -> Self {
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
        Self {
            cell,
            sources,
            active,
        }
    }
}

impl CellNet {
    /// The cell's output `[n, outputs × channels, h, w]` from the outputs of earlier cells.
    fn forward(
        &self,
        pass: &Pass,
        inputs: &[Tensor],
        mix: &Mix<'_>,
        noise: Streams,
    ) -> Result<Tensor> {
        let cell = mix.cell;
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
            if self.fused && fused::fits(&x, self.channels) {
                self.add_source(pass, s, &x, mix, noise, &mut states)?;
                continue;
            }
            for (e, y) in self.source(pass, s, &x, mix, noise) {
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
        Ok(match outputs.as_slice() {
            [only] => only.shallow_clone(),
            all => Tensor::cat(all, 1),
        })
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

    /// The candidates that are computed of edges that leave state `s`: operation, layers, and the edges with their
    /// positions and weights.
    fn active<'a>(
        &'a self,
        s: usize,
        mix: &'a Mix<'_>,
    ) -> impl Iterator<Item = (Op, &'a Layers, Vec<usize>, &'a Active)> {
        let computed = self.candidates[s].iter().zip(&mix.active[s]);
        let candidates = mix.sources[s].iter().zip(computed);
        candidates.filter_map(|((op, edges), (layers, active))| {
            let active = active.as_ref()?;
            let edges = active.0.iter().map(|&i| edges[i]).collect();
            Some((*op, layers, edges, active))
        })
    }

    /// Adds the candidates of every active edge that leaves state `s` to the states where the edges end.
    fn add_source(
        &self,
        pass: &Pass,
        s: usize,
        x: &Tensor,
        mix: &Mix<'_>,
        noise: Streams,
        states: &mut [Option<Tensor>],
    ) -> Result<()> {
        let mut input = Input::new(x);
        for (op, layers, edges, (positions, weights)) in self.active(s, mix) {
            // The edges of a source are in the order of the states where they end.
            let mut nodes: Vec<&mut Option<Tensor>> = states
                .iter_mut()
                .enumerate()
                .filter(|(to, _)| edges.iter().any(|&e| mix.cell.edges[e].to == *to))
                .map(|(_, state)| state)
                .collect();
            if op == Op::Noise {
                let z = self.noise(s, x, mix, noise, &edges);
                let size = z.size();
                let z = z.reshape([size[0], size[1], size[2], size[3] * size[4]]);
                let (y, norm) = (z.permute([0, 3, 1, 2]), fused::Norm::None);
                fused::blend(&y, &norm, false, self.channels, weights, &mut nodes)?;
            } else {
                let channels = self.channels;
                layers.fused(pass, &mut input, positions, weights, channels, &mut nodes)?;
            }
        }
        Ok(())
    }

    /// Normal numbers for edges that leave state `s`, `[n, h, w, edges, channels]`.
    fn noise(
        &self,
        s: usize,
        x: &Tensor,
        mix: &Mix<'_>,
        noise: Streams,
        edges: &[usize],
    ) -> Tensor {
        let size = x.size();
        let stride = stride(self.reduce, s, mix.cell.inputs);
        let strided = |n: i64| (n + stride - 1) / stride;
        let shape = [size[0], strided(size[2]), strided(size[3]), size[1]];
        let draw = |e: &usize| {
            let rng = &mut noise.at("noise", *e as u64);
            rng::normal(rng, &shape, x.kind(), x.device())
        };
        Tensor::stack(&edges.iter().map(draw).collect::<Vec<_>>(), 3)
    }

    /// Weighted sums over the candidates of every active edge that leaves state `s`: edge and `[n, channels, h, w]`.
    fn source(
        &self,
        pass: &Pass,
        s: usize,
        x: &Tensor,
        mix: &Mix<'_>,
        noise: Streams,
    ) -> Vec<(usize, Tensor)> {
        let mut input = Input::new(x);
        // Sums over candidates with the same edges, `[n, h, w, edges, channels]`.
        let mut sums: BTreeMap<Vec<usize>, Tensor> = BTreeMap::new();
        for (op, layers, edges, (positions, weights)) in self.active(s, mix) {
            let count = edges.len() as i64;
            let sum = sums.remove(&edges);
            let y = if op == Op::Noise {
                weighted(sum, &self.noise(s, x, mix, noise, &edges), weights)
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
