//! What an architecture computes in every cell.

use nasfw_framework::prelude::*;
use tch::Tensor;

use super::variant::{INPUTS, OPS, OUTPUT, Variant};

/// Where a part of a cell goes: into a choice block, or into a block's place in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Block(usize),
    Output(usize),
}

/// Targets of a tensor and its weight for each, `[targets]`.
pub(super) struct Route {
    pub targets: Vec<Target>,
    pub mix: Tensor,
}

/// What an architecture computes in every cell, and with which weights: nothing that is masked or leads nowhere.
pub(super) struct Routes {
    /// Projections of the cell's input, by their position, with one target each.
    pub projections: (Vec<usize>, Route),
    /// Per block: operations with their weights (`[1]`), and where the block's sum goes.
    pub blocks: Vec<(Vec<(usize, Tensor)>, Route)>,
    /// Per block: weight of the channels that bypass its operations.
    pub row_sums: Vec<Tensor>,
    /// Weight of the identity beside every block's operations.
    pub auxiliary: f64,
    /// Per block, where given: what is added to every number that it puts out.
    pub offsets: Vec<Tensor>,
    /// Rate of dropping what a block's operations put out.
    pub drop_path: f64,
}

impl Routes {
    pub fn new(
        variant: Variant,
        arch: &RelaxedArch,
        options: &SupernetOptions,
        mode: Mode,
    ) -> Result<Self> {
        let blocks = variant.blocks.len();
        let on = |g, r, c| options.allows(g, r, c) && arch.is_active(g, r, c);
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
        let offsets = arch.offsets.as_ref().map(|of| of[OPS].unbind(0));
        Ok(Self {
            projections,
            blocks,
            row_sums: options.row_sums(arch, OPS).unbind(0),
            auxiliary: options.auxiliary(arch),
            offsets: offsets.unwrap_or_default(),
            drop_path: options.rates(arch, mode)?.1,
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

/// Sums so far: inputs of blocks, and the blocks' parts of the output.
pub(super) struct Nodes {
    pub blocks: Vec<Option<Tensor>>,
    pub outputs: Vec<Option<Tensor>>,
}

impl Nodes {
    pub fn new(blocks: usize) -> Self {
        let none = || (0..blocks).map(|_| None).collect();
        Self {
            blocks: none(),
            outputs: none(),
        }
    }

    /// Those of the targets, blocks first and each kind in ascending order, as routes have them.
    pub fn of(&mut self, targets: &[Target]) -> Vec<&mut Option<Tensor>> {
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
