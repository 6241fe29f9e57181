//! An architecture as a directed acyclic graph of what it computes, whatever space it is of.

use std::collections::BTreeSet;

use super::genotype::Cell;

/// What a vertex is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Label {
    /// An input of a cell, counted from zero.
    Input(usize),
    /// An operation, on an edge or on a node.
    Operation(String),
    /// The output of a cell.
    Output,
}

/// A cell as a graph whose vertices compute something: its inputs, its operations and its output, each behind those that
/// it reads. Where operations sit on edges, each is a vertex that reads the operations on the edges into its source (the
/// line graph of a cell, as arch2vec has it for NAS-Bench-201 and DARTS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dag {
    /// What every vertex is; the last one is the output.
    pub labels: Vec<Label>,
    /// Pairs of vertices (from, to), from < to.
    pub edges: BTreeSet<(usize, usize)>,
}

impl Dag {
    /// The graph of a cell that [`Genotype::check`](super::Genotype::check) has nothing against.
    pub fn of(cell: &Cell) -> Self {
        let (mut labels, mut edges) = (vec![], BTreeSet::new());
        let mut add = |label: Label, from: &[usize]| {
            labels.push(label);
            let to = labels.len() - 1;
            edges.extend(from.iter().map(|&from| (from, to)));
            to
        };
        // Per state the vertices whose sum it is.
        let mut states: Vec<Vec<usize>> = (0..cell.inputs.len())
            .map(|i| vec![add(Label::Input(i), &[])])
            .collect();
        for node in &cell.nodes {
            let mut sum = vec![];
            for edge in &node.inputs {
                match &edge.op {
                    Some(op) => sum.push(add(Label::Operation(op.clone()), &states[edge.from])),
                    None => sum.extend(&states[edge.from]),
                }
            }
            // Sums of sums of the same vertices would grow without end.
            sum.sort_unstable();
            sum.dedup();
            states.push(match &node.op {
                Some(op) => vec![add(Label::Operation(op.clone()), &sum)],
                None => sum,
            });
        }
        let out: Vec<usize> = (cell.output.iter().flat_map(|&s| &states[s]).copied()).collect();
        add(Label::Output, &out);
        Self { labels, edges }
    }
}
