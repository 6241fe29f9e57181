//! The weight-sharing network of a cell space.
//!
//! All edges that leave one state run as one batched operation per candidate: convolutions and batch norms over
//! edges × channels, poolings and the identity once for all edges. Nothing that is masked, or leads nowhere, is
//! computed. On CPUs fused kernels do most of the work; elsewhere, with running statistics and under drop path,
//! libtorch's own operators, where the architecture's weight is the scale of a candidate's last batch norm.

use std::collections::BTreeMap;
use std::sync::Arc;

use nasfw_framework::prelude::*;
use nasfw_framework::supernet::BatchNormStats;
use tch::Tensor;

use super::cell::CellNet;
use super::cell_type::CellType;
use super::chain::Layers;
use super::mix::{Candidates, Mix, stride};
use super::skeleton::{Block, Chain, Plan};
use crate::layers::{Op, Role};
use crate::ops::{Builder, Classifier, channels_last};

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
    options: SupernetOptions,
    /// Pixels of the smallest maps.
    pixels: i64,
}

enum Trunk {
    Cell(CellNet),
    Residual(Layers, Layers),
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
        let sources: Vec<_> = types
            .iter()
            .enumerate()
            .map(|(g, cell)| sources(cell, |e, c| options.allows(g, e, c)))
            .collect();
        let stem = plan.stem.iter().map(|c| Layers::one(&mut b, c)).collect();
        let mut number = 0;
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
                    let mixed = *channels / options.partial();
                    let stride = |s| stride(*reduce, s, types[*kind].inputs);
                    let candidates = sources[*kind].iter().enumerate().map(|(s, source)| {
                        let candidates = source.iter().map(|(op, edges)| {
                            let layers = op.layers(mixed, stride(s), role);
                            let name = format!("{name}.from{s}.{}", op.name());
                            Layers::new(&mut b, &name, &layers, mixed, edges.len() as i64)
                        });
                        candidates.collect()
                    });
                    let candidates = candidates.collect();
                    let auxiliary = (0..types[*kind].states()).filter(|_| options.auxiliary_skip);
                    let auxiliary = auxiliary.map(|s| {
                        let layers = Op::Skip.layers(*channels, stride(s), role);
                        let edges = types[*kind].out_of(s).len() as i64;
                        Layers::new(
                            &mut b,
                            &format!("{name}.from{s}.auxiliary"),
                            &layers,
                            *channels,
                            edges,
                        )
                    });
                    let auxiliary = auxiliary.collect();
                    number += 1;
                    Trunk::Cell(CellNet {
                        name: name.clone(),
                        number: number - 1,
                        kind: *kind,
                        channels: *channels,
                        mixed,
                        reduce: *reduce,
                        fused,
                        inputs,
                        candidates,
                        auxiliary,
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
            options: options.clone(),
            pixels: plan.pixels,
        }
    }
}

impl CellSupernet {
    /// The cells, from input to output.
    fn cell_nets(&self) -> impl Iterator<Item = &CellNet> {
        self.blocks.iter().filter_map(|block| match block {
            Trunk::Cell(cell) => Some(cell),
            Trunk::Residual(..) => None,
        })
    }
}

/// The candidates of every state, as far as they are allowed by edge and column.
fn sources(cell: &CellType, allowed: impl Fn(usize, usize) -> bool) -> Vec<Candidates> {
    (0..cell.states())
        .map(|s| {
            let mut candidates: BTreeMap<Op, Vec<usize>> = BTreeMap::new();
            for (e, edge) in cell.edges.iter().enumerate().filter(|(_, e)| e.from == s) {
                for (c, &op) in edge.candidates.iter().enumerate() {
                    if op != Op::None && allowed(e, c) {
                        candidates.entry(op).or_default().push(e);
                    }
                }
            }
            candidates.into_iter().collect()
        })
        .collect()
}

impl Supernet for CellSupernet {
    fn layout(&self) -> &ParamLayout {
        &self.params
    }

    fn stats_layout(&self) -> ParamLayout {
        self.stats.clone()
    }

    fn cells(&self) -> usize {
        self.cell_nets().count()
    }

    fn cell_group(&self, k: usize) -> Option<usize> {
        self.cell_nets().nth(k).map(|cell| cell.kind)
    }

    fn own_weights(&self) -> Vec<OwnWeights> {
        let own = self.cell_nets().flat_map(|cell| {
            let sources = self.sources[cell.kind].iter().zip(&cell.candidates);
            let candidates = sources.flat_map(|(source, layers)| source.iter().zip(layers));
            candidates.flat_map(move |((op, edges), layers)| {
                let of_edge = move |(position, &row): (usize, &usize)| {
                    let ops = &self.types[cell.kind].edges[row].candidates;
                    Some(OwnWeights {
                        cell: cell.number,
                        group: cell.kind,
                        row,
                        column: ops.iter().position(|c| c == op)?,
                        stretches: layers.stretches(&self.params, position),
                    })
                };
                edges.iter().enumerate().filter_map(of_edge)
            })
        });
        own.filter(|own| !own.stretches.is_empty()).collect()
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
        let mix = |g: usize, arch: &RelaxedArch| {
            let (cell, sources) = (&self.types[g], &self.sources[g]);
            Mix::of(cell, sources, arch, g, &self.options, mode)
        };
        // Of all cells of a type, unless each has weights of its own.
        let shared: Vec<Mix> = match &arch.cells {
            None => (0..self.types.len())
                .map(|g| mix(g, arch))
                .collect::<Result<_>>()?,
            Some(_) => vec![],
        };
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
                    match shared.get(cell.kind) {
                        Some(mix) => cell.forward(&pass, inputs, mix, noise)?,
                        None => {
                            let own = mix(cell.kind, &arch.of_cell(cell.number))?;
                            cell.forward(&pass, inputs, &own, noise)?
                        }
                    }
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
