//! The weight-sharing network of NAS-Bench-1Shot1, with the projections of a cell's input batched into one convolution.

use nasfw_framework::observe;
use nasfw_framework::prelude::*;
use nasfw_framework::supernet::BatchNormStats;
use tch::Tensor;

use super::routes::{Nodes, Routes, Target};
use super::variant::{INPUTS, OPERATIONS, OPS, OUTPUT, Variant};
use crate::ops::{BatchNorm, Blend, Builder, Classifier, Conv, ConvBnRelu, Pass, channels_last};
use crate::options::{drop_path, shuffled, split_channels};

/// Stem, cells with pooling and doubled channels at each third, classifier.
pub(super) struct OneShotNet {
    variant: Variant,
    options: SupernetOptions,
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
    variant: Variant,
    /// Its number among all cells.
    number: usize,
    channels: i64,
    /// Channels that go through the operations: all, or the first of partial channels.
    mixed: i64,
    pool_before: bool,
    /// The projections that exist, in one convolution.
    parts: Vec<usize>,
    project: ConvBnRelu,
    /// Per block, where the candidate exists.
    conv3: Vec<Option<ConvBnRelu>>,
    conv1: Vec<Option<ConvBnRelu>>,
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
                    i,
                    (variant, options),
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
            options: options.clone(),
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

    fn cells(&self) -> usize {
        self.cells.len()
    }

    /// Projections belong to what reads the cell's input by choice: a block that chooses its parents, and the output.
    fn own_weights(&self) -> Vec<OwnWeights> {
        let own = self
            .cells
            .iter()
            .flat_map(|cell| cell.own_weights(&self.params));
        own.filter(|own| !own.stretches.is_empty()).collect()
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
        let routes = |arch: &RelaxedArch| Routes::new(self.variant, arch, &self.options, mode);
        let mut here = routes(arch)?;
        // Convolutions are faster with channels innermost. Images of one channel don't tell their memory format, so the
        // stem's output is converted; everything after it follows.
        let mut x = channels_last(&self.stem.forward(&pass, images));
        for (i, cell) in self.cells.iter().enumerate() {
            let noise = noise.child("cell", i as u64);
            if arch.cells.is_some() {
                here = routes(&arch.of_cell(i))?;
            }
            x = cell.forward(&pass, &x, &here, self.fused, noise)?;
        }
        let (conv, bn) = &self.last;
        let x = observe::relu_input(&x, 1, || "last".into());
        let x = bn.forward(&pass, &conv.forward(&pass, &x.relu()));
        Ok(self.classifier.forward(&pass, &x))
    }
}

impl OneShotCell {
    fn new(
        b: &mut Builder,
        number: usize,
        (variant, options): (Variant, &SupernetOptions),
        (inputs, channels): (i64, i64),
        pool_before: bool,
        momentum: f64,
    ) -> Self {
        let blocks = variant.blocks.len();
        let name = format!("cells.{number}");
        let exists = |part: &usize| match part.checked_sub(blocks) {
            Some(_) => options.allows(OUTPUT, 0, 0),
            None => {
                let row = variant.input_row(*part);
                row.is_none_or(|row| options.allows(INPUTS, row, 0))
            }
        };
        let parts: Vec<usize> = (0..2 * blocks).filter(exists).collect();
        let projections = (inputs, parts.len() as i64 * channels);
        let project = ConvBnRelu::new(b, &format!("{name}.project"), projections, 1, momentum);
        let mixed = channels / options.partial();
        let mut op = |column: usize, kernel: i64| {
            (0..blocks)
                .map(|block| {
                    let name = format!("{name}.node{}.conv{kernel}x{kernel}", block + 1);
                    let allowed = options.allows(OPS, block, column);
                    allowed.then(|| ConvBnRelu::new(b, &name, (mixed, mixed), kernel, momentum))
                })
                .collect()
        };
        let (conv3, conv1) = (op(1, 3), op(2, 1));
        Self {
            variant,
            number,
            channels,
            mixed,
            pool_before,
            parts,
            project,
            conv3,
            conv1,
        }
    }

    fn own_weights(&self, params: &ParamLayout) -> Vec<OwnWeights> {
        let own = |group, row, column, stretches| OwnWeights {
            cell: self.number,
            group,
            row,
            column,
            stretches,
        };
        let ops = [(1, &self.conv3), (2, &self.conv1)].into_iter();
        let mut all: Vec<OwnWeights> = ops
            .flat_map(|(column, convs)| {
                let convs = convs.iter().enumerate();
                convs.filter_map(move |(block, conv)| {
                    let stretches = conv.as_ref()?.stretches(params, 0, 1);
                    Some(own(OPS, block, column, stretches))
                })
            })
            .collect();
        let mut of_output = vec![];
        for (position, &part) in self.parts.iter().enumerate() {
            let stretches = self.project.stretches(params, position, self.parts.len());
            if part >= self.variant.blocks.len() {
                of_output.extend(stretches);
            } else if let Some(row) = self.variant.input_row(part) {
                all.push(own(INPUTS, row, 0, stretches));
            }
        }
        all.push(own(OUTPUT, 0, 0, of_output));
        all
    }

    /// `[n, inputs, h, w]` to `[n, blocks × channels, h, w]`, the pixels halved (rounded up, plus one) where the cell
    /// pools before.
    fn forward(
        &self,
        pass: &Pass,
        x: &Tensor,
        routes: &Routes,
        fused: bool,
        noise: Streams,
    ) -> Result<Tensor> {
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
        let place = |part: &usize| self.parts.iter().position(|p| p == part);
        let projected: Vec<usize> = projected.iter().filter_map(place).collect();
        if !projected.is_empty() {
            let to = &mut nodes.of(&route.targets);
            self.project
                .blend(pass, x, &projected, &blend, &route.mix, to, |i, part| {
                    self.tell_route(0, route.targets[i], part)
                })?;
        }
        for (block, (ops, route)) in routes.blocks.iter().enumerate() {
            let Some(x) = nodes.blocks[block].take() else {
                continue;
            };
            let sum = self.block(pass, block, &x, ops, routes, fused, noise)?;
            if let Some(sum) = sum.filter(|_| !route.targets.is_empty()) {
                let to = &mut nodes.of(&route.targets);
                blend.add_told(&sum, &route.mix, to, |i, part| {
                    self.tell_route(block + 1, route.targets[i], part)
                })?;
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

    /// Tells what state `from` puts into a target, where that is a choice.
    fn tell_route(&self, from: usize, to: Target, part: Tensor) -> Tensor {
        let cell = self.number;
        let place = |group, row| Place::Candidate {
            cell,
            group,
            row,
            column: from,
        };
        match to {
            Target::Block(block) => match self.variant.input_row(block) {
                Some(row) => observe::candidate(&part, || {
                    let name = format!("cells.{cell}.node{}.from{from}", block + 1);
                    (name, place(INPUTS, row))
                }),
                None => part,
            },
            Target::Output(at) => observe::candidate(&part, || {
                let name = format!("cells.{cell}.output{}.from{from}", at + 1);
                (name, place(OUTPUT, 0))
            }),
        }
    }

    /// Name and place of a block's operation.
    fn place(&self, block: usize, op: usize) -> (String, Place) {
        let name = OPERATIONS[op];
        let place = Place::Candidate {
            cell: self.number,
            group: OPS,
            row: block,
            column: op,
        };
        (
            format!("cells.{}.node{}.{name}", self.number, block + 1),
            place,
        )
    }

    /// What a choice block makes of its input `x`; none where nothing is computed.
    #[expect(clippy::too_many_arguments, reason = "a step of `forward`")]
    fn block(
        &self,
        pass: &Pass,
        block: usize,
        x: &Tensor,
        ops: &[(usize, Tensor)],
        routes: &Routes,
        fused: bool,
        noise: Streams,
    ) -> Result<Option<Tensor>> {
        let split = (self.mixed < self.channels).then(|| split_channels(x, self.mixed, 1));
        let first = split.as_ref().map(|(first, _)| channels_last(first));
        let input = first.as_ref().unwrap_or(x);
        let blend = Blend::new(input, self.mixed, fused);
        let mut sum = None;
        for (op, weight) in ops {
            let to = &mut [&mut sum];
            let conv = match op {
                0 => None,
                1 => self.conv3[block].as_ref(),
                _ => self.conv1[block].as_ref(),
            };
            let told = |_, y: Tensor| observe::candidate(&y, || self.place(block, *op));
            match conv {
                Some(conv) => conv.blend(pass, input, &[0], &blend, weight, to, told)?,
                None => {
                    let y = input.max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false);
                    blend.add_told(&y, weight, to, told)?;
                }
            }
        }
        let sum = sum.map(|sum| match &split {
            Some((_, rest)) => shuffled(&sum, &(rest * &routes.row_sums[block])),
            None => sum,
        });
        let sum = sum.map(|sum| match drop_path(noise, block, routes.drop_path, x) {
            Some(kept) => sum * kept,
            None => sum,
        });
        let beside = (routes.auxiliary != 0.0).then(|| x * routes.auxiliary);
        let offset = routes.offsets.get(block);
        Ok([sum, beside, offset.map(|o| x.zeros_like() + o)]
            .into_iter()
            .flatten()
            .reduce(|a, b| a + b))
    }
}
