//! One cell of the weight-sharing network.

use std::collections::BTreeMap;
use std::mem;

use nasfw_framework::prelude::*;
use nasfw_framework::{observe, rng};
use nasfw_kernels::fused;
use tch::Tensor;

use super::chain::{Flow, Input, Layers};
use super::mix::{Active, Mix, stride};
use crate::layers::Op;
use crate::ops::{Blend, Pass, channels_last};
use crate::options::{add_scaled, drop_path, dropout, shuffled, split_channels};

/// The layers of a cell.
pub(super) struct CellNet {
    pub name: String,
    /// Its number among all cells.
    pub number: usize,
    /// Index of its type.
    pub kind: usize,
    pub channels: i64,
    /// Channels that go through the candidates: all, or the first of partial channels.
    pub mixed: i64,
    pub reduce: bool,
    pub fused: bool,
    pub inputs: Vec<Option<Layers>>,
    /// Layers of every candidate of every source, in the order of the sources' candidates.
    pub candidates: Vec<Vec<Layers>>,
    /// Per source: the identities beside its edges; empty where none are asked for.
    pub auxiliary: Vec<Layers>,
}

/// Sums over edges into a node, so far.
#[derive(Default)]
struct Sums {
    /// Of what the candidates put out, `[n, mixed, h, w]`.
    mixed: Option<Tensor>,
    /// Of the channels that bypass them, `[n, channels − mixed, h, w]`.
    rest: Option<Tensor>,
    /// Of the identities beside the edges, `[n, channels, h, w]`.
    beside: Option<Tensor>,
}

impl CellNet {
    /// The cell's output `[n, outputs × channels, h, w]` from the outputs of earlier cells.
    pub fn forward(
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
        let mut sums: Vec<Sums> = (0..cell.states()).map(|_| Sums::default()).collect();
        let mut zero = None;
        for s in 0..cell.states() {
            if s >= cell.inputs {
                let node = self.node(mem::take(&mut sums[s]));
                states.push(match &mix.offsets[s] {
                    Some(offset) => {
                        Some(node.unwrap_or_else(|| self.zeros(&states, &mut zero)) + offset)
                    }
                    None => node,
                });
            }
            if !mix.reads(s) {
                continue;
            }
            let x = match &states[s] {
                Some(x) => x.shallow_clone(),
                None => self.zeros(&states, &mut zero),
            };
            self.add_source(pass, s, &x, mix, noise, &mut sums)?;
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

    /// A node from its sums; none where nothing leads there.
    fn node(&self, sums: Sums) -> Option<Tensor> {
        let whole = match sums.rest {
            Some(rest) => {
                let nothing = || rest.narrow(1, 0, self.mixed).zeros_like();
                Some(shuffled(&sums.mixed.unwrap_or_else(nothing), &rest))
            }
            None => sums.mixed,
        };
        match (whole, sums.beside) {
            (Some(x), Some(y)) => Some(x + y),
            (x, y) => x.or(y),
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

    /// Adds everything that is computed from state `s` to the sums of the nodes where the edges end.
    fn add_source(
        &self,
        pass: &Pass,
        s: usize,
        x: &Tensor,
        mix: &Mix<'_>,
        noise: Streams,
        sums: &mut [Sums],
    ) -> Result<()> {
        let stride = stride(self.reduce, s, mix.cell.inputs);
        let (positions, edges) = mix.accompanied(s);
        if let Some(layers) = self.auxiliary.get(s).filter(|_| !edges.is_empty()) {
            let (Flow::Shared(y) | Flow::Batched(y)) =
                layers.batched(pass, &mut Input::new(x), &positions, None);
            let weights = Tensor::full([edges.len() as i64], mix.auxiliary, (x.kind(), x.device()));
            let nodes = &mut ends(mix, sums, &edges, |node| &mut node.beside);
            Blend::new(&y, self.channels, self.fused).add(&y, &weights, nodes)?;
        }
        let path = |e: usize| drop_path(noise, e, mix.drop_path, x);
        let part;
        let x = if self.mixed == self.channels {
            x
        } else {
            let (first, rest) = split_channels(x, self.mixed, stride);
            for (e, weight) in mix.bypassed(s) {
                let node = &mut sums[mix.cell.edges[e].to].rest;
                let kept = path(e).map(|kept| kept * weight);
                *node = Some(add_scaled(
                    node.take(),
                    &rest,
                    kept.as_ref().unwrap_or(weight),
                ));
            }
            part = channels_last(&first);
            &part
        };
        let dropped = mix.drop_path > 0.0;
        if self.fused && !dropped && !observe::is_on() && fused::fits(x, self.mixed) {
            return self.add_fused(pass, s, x, mix, noise, sums);
        }
        let weighted = match observe::wanted() {
            Some(Wanted::Candidates) => self.told(pass, s, x, mix, noise),
            _ => self.source(pass, s, x, mix, noise),
        };
        for (e, y) in weighted {
            let y = match path(e) {
                Some(kept) => y * kept,
                None => y,
            };
            let node = &mut sums[mix.cell.edges[e].to].mixed;
            *node = Some(match node.take() {
                Some(sum) => sum + y,
                None => y,
            });
        }
        Ok(())
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

    /// Adds the candidates of every active edge that leaves state `s` to the nodes' sums by fused kernels.
    fn add_fused(
        &self,
        pass: &Pass,
        s: usize,
        x: &Tensor,
        mix: &Mix<'_>,
        noise: Streams,
        sums: &mut [Sums],
    ) -> Result<()> {
        let mut input = Input::new(x);
        for (op, layers, edges, (positions, weights)) in self.active(s, mix) {
            let nodes = &mut ends(mix, sums, &edges, |node| &mut node.mixed);
            if let Some(z) = self.drawn(op, s, x, mix, noise, &edges) {
                let size = z.size();
                let z = z.reshape([size[0], size[1], size[2], size[3] * size[4]]);
                let (y, norm) = (z.permute([0, 3, 1, 2]), fused::Norm::None);
                fused::blend(&y, &norm, false, self.mixed, weights, nodes)?;
            } else {
                layers.fused(pass, &mut input, positions, weights, self.mixed, nodes)?;
            }
        }
        Ok(())
    }

    /// What has random numbers of its own on each of the edges that leave state `s`, `[n, h, w, edges, channels]`:
    /// noise, and the identity under dropout.
    fn drawn(
        &self,
        op: Op,
        s: usize,
        x: &Tensor,
        mix: &Mix<'_>,
        noise: Streams,
        edges: &[usize],
    ) -> Option<Tensor> {
        let size = x.size();
        let stride = stride(self.reduce, s, mix.cell.inputs);
        let strided = |n: i64| (n + stride - 1) / stride;
        let shape = [size[0], strided(size[2]), strided(size[3]), size[1]];
        let each = |draw: &dyn Fn(u64) -> Tensor| {
            let all: Vec<Tensor> = edges.iter().map(|e| draw(*e as u64)).collect();
            Tensor::stack(&all, 3)
        };
        match op {
            Op::Noise => Some(each(&|e| {
                rng::normal(&mut noise.at("noise", e), &shape, x.kind(), x.device())
            })),
            Op::Skip if stride == 1 && mix.skip_dropout > 0.0 => {
                let factors = each(&|e| {
                    let rng = &mut noise.at("skip-dropout", e);
                    dropout(rng, &shape, mix.skip_dropout, x)
                });
                Some(x.permute([0, 2, 3, 1]).unsqueeze(3) * factors)
            }
            _ => None,
        }
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
            let y = if let Some(z) = self.drawn(op, s, x, mix, noise, &edges) {
                weighted(sum, &z, weights)
            } else {
                match layers.batched(pass, &mut input, positions, Some(weights)) {
                    Flow::Shared(z) => {
                        weighted(sum, &z.permute([0, 2, 3, 1]).unsqueeze(3), weights)
                    }
                    Flow::Batched(y) => {
                        let size = y.size();
                        let y = y
                            .permute([0, 2, 3, 1])
                            .reshape([size[0], size[2], size[3], count, self.mixed]);
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

    /// What [`CellNet::source`] gives, from candidates that are told one by one.
    fn told(
        &self,
        pass: &Pass,
        s: usize,
        x: &Tensor,
        mix: &Mix<'_>,
        noise: Streams,
    ) -> Vec<(usize, Tensor)> {
        let mut input = Input::new(x);
        let mut sums: BTreeMap<usize, Tensor> = BTreeMap::new();
        for (op, layers, edges, (positions, weights)) in self.active(s, mix) {
            let outputs = if let Some(z) = self.drawn(op, s, x, mix, noise, &edges) {
                let each = z.unbind(3).into_iter();
                each.map(|y| y.permute([0, 3, 1, 2])).collect()
            } else {
                match layers.batched(pass, &mut input, positions, None) {
                    Flow::Shared(y) => edges.iter().map(|_| y.shallow_clone()).collect(),
                    Flow::Batched(y) => y.split(self.mixed, 1),
                }
            };
            for ((e, y), weight) in edges.into_iter().zip(outputs).zip(weights.unbind(0)) {
                let y = observe::candidate(&y, || self.place(mix, e, op)) * weight;
                let sum = match sums.remove(&e) {
                    Some(sum) => sum + y,
                    None => y,
                };
                sums.insert(e, sum);
            }
        }
        sums.into_iter().collect()
    }

    /// Name and place of a candidate.
    fn place(&self, mix: &Mix<'_>, e: usize, op: Op) -> (String, Place) {
        let edge = &mix.cell.edges[e];
        let column = edge.candidates.iter().position(|c| *c == op);
        let place = Place::Candidate {
            cell: self.number,
            group: self.kind,
            row: e,
            column: column.unwrap_or_default(),
        };
        let Self { name, .. } = self;
        (
            format!("{name}.{}->{}.{}", edge.from, edge.to, op.name()),
            place,
        )
    }
}

/// One of the sums of every node where an edge ends. The edges of a source are in the order of these.
fn ends<'a>(
    mix: &Mix<'_>,
    sums: &'a mut [Sums],
    edges: &[usize],
    sum: fn(&mut Sums) -> &mut Option<Tensor>,
) -> Vec<&'a mut Option<Tensor>> {
    let ends = |to: usize| edges.iter().any(|&e| mix.cell.edges[e].to == to);
    let nodes = sums.iter_mut().enumerate().filter(|(to, _)| ends(*to));
    nodes.map(|(_, node)| sum(node)).collect()
}

/// `sum + z·w`, for `z` of one edge or all, `[n, h, w, 1 or edges, channels]`, and `w` `[edges]`.
fn weighted(sum: Option<Tensor>, z: &Tensor, weights: &Tensor) -> Tensor {
    add_scaled(sum, z, &weights.view([-1, 1]))
}
