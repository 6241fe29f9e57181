//! The weight-sharing network of NAS-Bench-1Shot1, with the projections of a cell's input batched into one convolution.

use nasfw_framework::prelude::*;
use nasfw_framework::supernet::BatchNormStats;
use tch::Tensor;

use super::{INPUTS, OPS, OUTPUT, Variant};
use crate::ops::{BatchNorm, Builder, Classifier, Conv, ConvBnRelu, Pass, channels_last};

/// Stem, cells with pooling and doubled channels at each third, classifier.
pub(super) struct OneShotNet {
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
        batch_norm: BatchNormStats,
        momentum: f64,
    ) -> Self {
        let mut b = Builder::new(batch_norm);
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
                    variant,
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
        let arch = Entries::of(arch);
        // Convolutions are faster with channels innermost. Images of one channel don't tell their memory format, so the
        // stem's output is converted; everything after it follows.
        let mut x = channels_last(&self.stem.forward(&pass, images));
        for cell in &self.cells {
            x = cell.forward(&pass, &x, &arch)?;
        }
        let (conv, bn) = &self.last;
        let x = bn.forward(&pass, &conv.forward(&pass, &x.relu()));
        Ok(self.classifier.forward(&pass, &x))
    }
}

/// The architecture's weights as scalars, split once per forward pass and shared by all cells. None where masked.
struct Entries {
    scalars: [Vec<Vec<Option<Tensor>>>; 3],
}

impl Entries {
    fn of(arch: &RelaxedArch) -> Self {
        let group = |g: usize| {
            let rows = arch.weights[g].unbind(0);
            rows.iter()
                .enumerate()
                .map(|(r, row)| {
                    let scalars = row.unbind(0).into_iter().enumerate();
                    scalars
                        .map(|(c, w)| arch.is_active(g, r, c).then_some(w))
                        .collect()
                })
                .collect()
        };
        Self {
            scalars: [group(OPS), group(INPUTS), group(OUTPUT)],
        }
    }
}

impl OneShotCell {
    fn new(
        b: &mut Builder,
        name: &str,
        variant: Variant,
        (inputs, channels): (i64, i64),
        pool_before: bool,
        momentum: f64,
    ) -> Self {
        let blocks = variant.blocks.len();
        let projections = (inputs, 2 * blocks as i64 * channels);
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
            variant,
            channels,
            pool_before,
            project,
            conv3,
            conv1,
        }
    }

    /// `[n, inputs, h, w]` to `[n, blocks × channels, h, w]`, the pixels halved (rounded up, plus one) where the cell
    /// pools before.
    fn forward(&self, pass: &Pass, x: &Tensor, arch: &Entries) -> Result<Tensor> {
        let pooled;
        let x = if self.pool_before {
            pooled = x.max_pool2d([2, 2], [2, 2], [1, 1], [1, 1], false);
            &pooled
        } else {
            x
        };
        let blocks = self.variant.blocks.len();
        let output = &arch.scalars[OUTPUT][0];
        let needed = self.needed(arch);
        let mut projected = self.project(pass, x, arch, &needed);
        let mut states: Vec<Option<Tensor>> = Vec::with_capacity(blocks);
        for block in 0..blocks {
            let state = if needed[block] {
                let sum = self.block_input(block, projected[block].take(), &states, arch);
                match sum {
                    Some(sum) => self.block(pass, block, &sum, arch),
                    None => None,
                }
            } else {
                None
            };
            states.push(state);
        }
        let parts: Vec<Option<Tensor>> = states
            .iter()
            .zip(&output[1..])
            .map(|(state, u)| Some(state.as_ref()? * u.as_ref()?))
            .collect();
        let zero = parts.iter().flatten().next().map(Tensor::zeros_like);
        let joined = zero.map(|zero| {
            let parts: Vec<&Tensor> = parts.iter().map(|p| p.as_ref().unwrap_or(&zero)).collect();
            Tensor::cat(&parts, 1)
        });
        let direct = projected.pop().flatten().zip(output[0].as_ref());
        match (joined, direct) {
            (Some(joined), Some((p, u))) => Ok(joined.addcmul(&p, u)),
            (Some(joined), None) => Ok(joined),
            (None, Some((p, u))) => Ok(p * u),
            (None, None) => Err(Error::Invalid {
                what: "architecture".into(),
                why: "no active path leads from a cell's input to its output".into(),
            }),
        }
    }

    /// Which blocks reach the output through active entries.
    fn needed(&self, arch: &Entries) -> Vec<bool> {
        let blocks = self.variant.blocks.len();
        let mut needed: Vec<bool> = (0..blocks)
            .map(|b| arch.scalars[OUTPUT][0][b + 1].is_some())
            .collect();
        for later in (0..blocks).rev().filter(|&b| b > 0) {
            if needed[later] {
                for (earlier, needed) in needed[..later].iter_mut().enumerate() {
                    *needed |= self.source(later, earlier + 1, arch).is_some();
                }
            }
        }
        needed
    }

    /// How `block` weights a state (0 is the cell's input): none where masked, one where it has no choice.
    fn source<'a>(
        &self,
        block: usize,
        state: usize,
        arch: &'a Entries,
    ) -> Option<Option<&'a Tensor>> {
        match self.variant.input_row(block) {
            None => Some(None),
            Some(row) => arch.scalars[INPUTS][row][state].as_ref().map(Some),
        }
    }

    /// The projections that are needed, by one convolution: one per block, then the output's.
    fn project(
        &self,
        pass: &Pass,
        x: &Tensor,
        arch: &Entries,
        needed: &[bool],
    ) -> Vec<Option<Tensor>> {
        let (c, blocks) = (self.channels, needed.len());
        let wanted: Vec<bool> = (0..blocks)
            .map(|b| needed[b] && self.source(b, 0, arch).is_some())
            .chain([arch.scalars[OUTPUT][0][0].is_some()])
            .collect();
        let sizes: Vec<i64> = (0..blocks).map(|_| c).chain([blocks as i64 * c]).collect();
        let ranges: Vec<(i64, i64)> = (0..=blocks)
            .filter(|&i| wanted[i])
            .map(|i| (sizes[..i].iter().sum(), sizes[i]))
            .collect();
        if ranges.is_empty() {
            return wanted.iter().map(|_| None).collect();
        }
        let y = if ranges.len() == wanted.len() {
            self.project.forward(pass, x)
        } else {
            self.project.forward_part(pass, x, &ranges)
        };
        let lengths: Vec<i64> = ranges.iter().map(|(_, n)| *n).collect();
        let mut parts = y.split_with_sizes(lengths, 1).into_iter();
        wanted
            .iter()
            .map(|&w| if w { parts.next() } else { None })
            .collect()
    }

    fn block_input(
        &self,
        block: usize,
        projected: Option<Tensor>,
        states: &[Option<Tensor>],
        arch: &Entries,
    ) -> Option<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (state, t) in std::iter::once(&projected).chain(states).enumerate() {
            let (Some(t), Some(weight)) = (t, self.source(block, state, arch)) else {
                continue;
            };
            sum = Some(match (sum, weight) {
                (None, None) => t.shallow_clone(),
                (None, Some(v)) => t * v,
                (Some(sum), None) => sum + t,
                (Some(sum), Some(v)) => sum.addcmul(t, v),
            });
        }
        sum
    }

    /// The weighted sum of the block's operations; none where all are masked.
    fn block(&self, pass: &Pass, block: usize, x: &Tensor, arch: &Entries) -> Option<Tensor> {
        let weights = &arch.scalars[OPS][block];
        let mut sum: Option<Tensor> = None;
        for (op, weight) in weights.iter().enumerate() {
            let Some(p) = weight else { continue };
            let y = match op {
                0 => x.max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false),
                1 => self.conv3[block].forward(pass, x),
                _ => self.conv1[block].forward(pass, x),
            };
            sum = Some(match sum {
                None => y * p,
                Some(sum) => sum.addcmul(&y, p),
            });
        }
        sum
    }
}
