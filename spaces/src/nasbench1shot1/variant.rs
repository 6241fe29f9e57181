//! Which of the three spaces has what.

use nasfw_framework::prelude::*;

/// Names of the candidate operations, in the order of the columns (spec of the original code).
pub const OPERATIONS: [&str; 3] = ["maxpool3x3", "conv3x3-bn-relu", "conv1x1-bn-relu"];

/// How a block, or the output, gets its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parents {
    /// All earlier states.
    All,
    /// So many of the earlier states.
    Choose(usize),
}

/// One of the three spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// Parents of blocks 1, 2, …
    pub(super) blocks: &'static [Parents],
    /// How many states the output joins.
    pub(super) output: usize,
}

use Parents::{All, Choose};

pub(super) const S1: Variant = Variant {
    name: "nasbench1shot1-s1",
    blocks: &[All, All, Choose(2), Choose(2)],
    output: 2,
};
pub(super) const S2: Variant = Variant {
    name: "nasbench1shot1-s2",
    blocks: &[All, Choose(1), Choose(2), Choose(2)],
    output: 3,
};
pub(super) const S3: Variant = Variant {
    name: "nasbench1shot1-s3",
    blocks: &[All, Choose(1), Choose(1), Choose(2), Choose(2)],
    output: 2,
};

/// Indices of the groups in the spec.
pub(super) const OPS: usize = 0;
pub(super) const INPUTS: usize = 1;
pub(super) const OUTPUT: usize = 2;

impl Variant {
    /// Row of the group `inputs` that belongs to a block, if it has a choice.
    pub(super) fn input_row(&self, block: usize) -> Option<usize> {
        let choose = |p: &&Parents| matches!(p, Choose(_));
        choose(&&self.blocks[block]).then(|| self.blocks[..block].iter().filter(choose).count())
    }

    pub(super) fn spec(&self) -> Result<ArchSpec> {
        let states = |n: usize| -> Vec<String> {
            std::iter::once("input".to_owned())
                .chain((1..n).map(|i| format!("node {i}")))
                .collect()
        };
        let rows = |keep: &dyn Fn(usize) -> Option<(Vec<String>, usize)>| -> Vec<Row> {
            (0..self.blocks.len())
                .filter_map(|b| {
                    let (candidates, keep) = keep(b)?;
                    Some(Row {
                        name: format!("node {}", b + 1),
                        candidates,
                        keep,
                    })
                })
                .collect()
        };
        let ops = rows(&|_| Some((OPERATIONS.map(str::to_owned).to_vec(), 1)));
        let inputs = rows(&|b| match self.blocks[b] {
            Choose(k) => Some((states(b + 1), k)),
            All => None,
        });
        let candidates = states(self.blocks.len() + 1);
        let output = vec![Row {
            name: "output".into(),
            candidates,
            keep: self.output,
        }];
        let group = |name: &str, role, rows| Group {
            name: name.into(),
            role,
            rows,
            edges: None,
        };
        ArchSpec::new(vec![
            group("ops", Role::Operations, ops),
            group("inputs", Role::Topology, inputs),
            group("output", Role::Topology, output),
        ])
    }
}
