//! The weight-sharing network of NAS-Bench-1Shot1, with the projections of a cell's input batched into one convolution.

use nasfw_framework::prelude::*;
use nasfw_framework::supernet::BatchNormStats;
use tch::Tensor;

use super::{INPUTS, OPS, OUTPUT, Variant};
use crate::ops::{BatchNorm, Blend, Builder, Classifier, Conv, ConvBnRelu, Pass, channels_last};

/// Stem, cells with pooling and doubled channels at each third, classifier.
pub(super) struct OneShotNet {
    variant: Variant,
    fused: bool,
    params: ParamLayout,
    stats: ParamLayout,
    stem: ConvBnRelu,
    cells: Vec<OneShotCell>,
    last: (Conv, BatchNorm),
    classifier: Classifier,
}

/// A cell: `2 × blocks` projections of its input, of which the first `blocks` (of `channels` each) feed the choice
/// blocks and the others (`blocks × channels` channels together) the output; and the blocks' operations.
struct OneShotCell {
    channels: i64,
    pool_before: bool,
    project: ConvBnRelu,
    conv3: Vec<ConvBnRelu>,
    conv1: Vec<ConvBnRelu>,
}

impl OneShotNet {
    pub fn new(
        variant: Variant,
        task: Task,
        channels: i64,
        cells: usize,
        options: &SupernetOptions,
        momentum: f64,
    ) -> Self {
        let mut b = Builder::new(options.batch_norm);
        let stem = ConvBnRelu::new(&mut b, "stem", (task.channels, channels), 3, momentum);
        let blocks = variant.blocks.len() as i64;
        let (mut inputs, mut c) = (channels, channels);
        let cells = (0..cells)
            .map(|i| {
                let pool_before = i > 0 && (i == cells / 3 || i == 2 * cells / 3);
                if pool_before {
                    c *= 2;
                }
                let cell = OneShotCell::new(
                    &mut b,
                    &format!("cells.{i}"),
                    blocks,
                    (inputs, c),
                    pool_before,
                    momentum,
                );
                inputs = blocks * c;
                cell
            })
            .collect();
        let last = (
            Conv::new(&mut b, "last.conv", inputs, c, 1),
            BatchNorm::new(&mut b, "last.bn", c, false, momentum),
        );
        let classifier = Classifier::new(&mut b, "classifier", c, task.classes);
        Self {
            variant,
            fused: !options.plain && options.batch_norm == BatchNormStats::Batch,
            params: b.params,
            stats: b.stats,
            stem,
            cells,
            last,
            classifier,
        }
    }
}

impl Supernet for OneShotNet {
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
        _noise: Streams,
    ) -> Result<Tensor> {
        let pass = Builder::pass(&self.params, &self.stats, weights, mode);
        let routes = Routes::new(self.variant, arch)?;
        // Convolutions are faster with channels innermost. Images of one channel don't tell their memory format, so the
        // stem's output is converted; everything after it follows.
        let mut x = channels_last(&self.stem.forward(&pass, images));
        for cell in &self.cells {
            x = cell.forward(&pass, &x, &routes, self.fused)?;
        }
        let (conv, bn) = &self.last;
        let x = bn.forward(&pass, &conv.forward(&pass, &x.relu()));
        Ok(self.classifier.forward(&pass, &x))
    }
}

/// Where a part of a cell goes: into a choice block, or into a block's place in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Block(usize),
    Output(usize),
}

/// Targets of a tensor and its weight for each, `[targets]`.
struct Route {
    targets: Vec<Target>,
    mix: Tensor,
}

/// What an architecture computes in every cell, and with which weights: nothing that is masked or leads nowhere.
struct Routes {
    /// Projections of the cell's input, by their position, with one target each.
    projections: (Vec<usize>, Route),
    /// Per block: operations with their weights (`[1]`), and where the block's sum goes.
    blocks: Vec<(Vec<(usize, Tensor)>, Route)>,
}

impl Routes {
    fn new(variant: Variant, arch: &RelaxedArch) -> Result<Self> {
        let blocks = variant.blocks.len();
        let on = |g, r, c| arch.is_active(g, r, c);
        let widths: Vec<i64> = arch.weights.iter().map(|w| w.size()[1]).collect();
        let rows: Vec<i64> = arch.weights.iter().map(|w| w.size()[0]).collect();
        // Entries of the groups one after the other, then the weight of what is not chosen, one.
        let position = |g: usize, r: usize, c: usize| -> i64 {
            let before: i64 = (0..g).map(|g| rows[g] * widths[g]).sum();
            before + r as i64 * widths[g] + c as i64
        };
        let one: i64 = (0..3).map(|g| rows[g] * widths[g]).sum();
        let into_block = |block: usize, state: usize| match variant.input_row(block) {
            None => Some(one),
            Some(row) => on(INPUTS, row, state).then(|| position(INPUTS, row, state)),
        };
        let into_output = |state: usize| on(OUTPUT, 0, state).then(|| position(OUTPUT, 0, state));

        let mut needed: Vec<bool> = (0..blocks).map(|b| into_output(b + 1).is_some()).collect();
        for later in (1..blocks).rev() {
            for earlier in 0..later {
                needed[earlier] |= needed[later] && into_block(later, earlier + 1).is_some();
            }
        }
        // Per route: targets, and positions of their weights.
        let mut weights: Vec<Vec<i64>> = Vec::new();
        let (mut projected, mut targets, mut entries) = (vec![], vec![], vec![]);
        for b in (0..blocks).filter(|&b| needed[b]) {
            if let Some(weight) = into_block(b, 0) {
                projected.push(b);
                targets.push(Target::Block(b));
                entries.push(weight);
            }
        }
        if let Some(weight) = into_output(0) {
            projected.extend(blocks..2 * blocks);
            targets.extend((0..blocks).map(Target::Output));
            entries.extend((0..blocks).map(|_| weight));
        }
        weights.push(entries);
        let mut plans = Vec::new();
        for b in 0..blocks {
            let ops: Vec<usize> = (0..widths[OPS] as usize)
                .filter(|&op| needed[b] && on(OPS, b, op))
                .collect();
            weights.extend(ops.iter().map(|&op| vec![position(OPS, b, op)]));
            let later = (b + 1..blocks).filter(|&l| needed[l]);
            let (to, entries): (Vec<Target>, Vec<i64>) = later
                .filter_map(|l| Some((Target::Block(l), into_block(l, b + 1)?)))
                .chain(into_output(b + 1).map(|w| (Target::Output(b), w)))
                .unzip();
            weights.push(entries);
            plans.push((ops, to));
        }

        let mut mixes = pick_entries(arch, &weights).into_iter();
        let mut next = || {
            mixes.next().ok_or_else(|| Error::Invalid {
                what: "architecture".into(),
                why: "it has fewer weights than the space".into(),
            })
        };
        let projections = (
            projected,
            Route {
                targets,
                mix: next()?,
            },
        );
        let blocks = plans
            .into_iter()
            .map(|(ops, targets)| {
                let ops = ops.into_iter().map(|op| Ok((op, next()?)));
                let ops = ops.collect::<Result<_>>()?;
                Ok((
                    ops,
                    Route {
                        targets,
                        mix: next()?,
                    },
                ))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            projections,
            blocks,
        })
    }
}

/// The architecture's weights at the given positions, `[positions]` each; the position after the last is one.
fn pick_entries(arch: &RelaxedArch, positions: &[Vec<i64>]) -> Vec<Tensor> {
    let like = &arch.weights[0];
    let one = Tensor::ones([1], (like.kind(), like.device()));
    let parts = arch.weights.iter().map(|w| w.reshape([-1]));
    let all = Tensor::cat(&parts.chain([one]).collect::<Vec<_>>(), 0);
    let index = Tensor::from_slice(&positions.concat()).to_device(all.device());
    let lengths: Vec<i64> = positions.iter().map(|p| p.len() as i64).collect();
    all.index_select(0, &index).split_with_sizes(lengths, 0)
}

impl OneShotCell {
    fn new(
        b: &mut Builder,
        name: &str,
        blocks: i64,
        (inputs, channels): (i64, i64),
        pool_before: bool,
        momentum: f64,
    ) -> Self {
        let projections = (inputs, 2 * blocks * channels);
        let project = ConvBnRelu::new(b, &format!("{name}.project"), projections, 1, momentum);
        let mut op = |kernel: i64| {
            (1..=blocks)
                .map(|i| {
                    let name = format!("{name}.node{i}.conv{kernel}x{kernel}");
                    ConvBnRelu::new(b, &name, (channels, channels), kernel, momentum)
                })
                .collect()
        };
        let (conv3, conv1) = (op(3), op(1));
        Self {
            channels,
            pool_before,
            project,
            conv3,
            conv1,
        }
    }

    /// `[n, inputs, h, w]` to `[n, blocks × channels, h, w]`, the pixels halved (rounded up, plus one) where the cell
    /// pools before.
    fn forward(&self, pass: &Pass, x: &Tensor, routes: &Routes, fused: bool) -> Result<Tensor> {
        let pooled;
        let x = if self.pool_before {
            pooled = x.max_pool2d([2, 2], [2, 2], [1, 1], [1, 1], false);
            &pooled
        } else {
            x
        };
        let blend = Blend::new(x, self.channels, fused);
        let mut nodes = Nodes::new(routes.blocks.len());
        let (projected, route) = &routes.projections;
        if !projected.is_empty() {
            let to = &mut nodes.of(&route.targets);
            self.project
                .blend(pass, x, projected, &blend, &route.mix, to)?;
        }
        for (block, (ops, route)) in routes.blocks.iter().enumerate() {
            let Some(x) = nodes.blocks[block].take() else {
                continue;
            };
            let mut sum = None;
            for (op, weight) in ops {
                let to = &mut [&mut sum];
                match op {
                    0 => {
                        let y = x.max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false);
                        blend.add(&y, weight, to)?;
                    }
                    1 => self.conv3[block].blend(pass, &x, &[0], &blend, weight, to)?,
                    _ => self.conv1[block].blend(pass, &x, &[0], &blend, weight, to)?,
                }
            }
            if let Some(sum) = sum.filter(|_| !route.targets.is_empty()) {
                blend.add(&sum, &route.mix, &mut nodes.of(&route.targets))?;
            }
        }
        let Some(like) = nodes.outputs.iter().flatten().next() else {
            return Err(Error::Invalid {
                what: "architecture".into(),
                why: "no active path leads from a cell's input to its output".into(),
            });
        };
        let holes = nodes.outputs.iter().any(Option::is_none);
        let zero = holes.then(|| like.zeros_like());
        let parts = nodes
            .outputs
            .iter()
            .filter_map(|p| p.as_ref().or(zero.as_ref()));
        Ok(Tensor::cat(&parts.collect::<Vec<_>>(), 1))
    }
}

/// Sums so far: inputs of blocks, and the blocks' parts of the output.
struct Nodes {
    blocks: Vec<Option<Tensor>>,
    outputs: Vec<Option<Tensor>>,
}

impl Nodes {
    fn new(blocks: usize) -> Self {
        let none = || (0..blocks).map(|_| None).collect();
        Self {
            blocks: none(),
            outputs: none(),
        }
    }

    /// Those of the targets, blocks first and each kind in ascending order, as routes have them.
    fn of(&mut self, targets: &[Target]) -> Vec<&mut Option<Tensor>> {
        let blocks = self.blocks.iter_mut().enumerate();
        let outputs = self.outputs.iter_mut().enumerate();
        blocks
            .map(|(i, node)| (Target::Block(i), node))
            .chain(outputs.map(|(i, node)| (Target::Output(i), node)))
            .filter(|(target, _)| targets.contains(target))
            .map(|(_, node)| node)
            .collect()
    }
}
