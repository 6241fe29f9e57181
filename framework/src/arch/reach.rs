//! What of a cell has an effect on what it puts out.

use super::{Cell, Node};

/// The operation of an edge that carries nothing, where a genotype has such edges at all.
const NOTHING: &str = "none";

/// States that a node reads something from.
fn read_by(node: &Node) -> impl Iterator<Item = usize> {
    let carries = node
        .inputs
        .iter()
        .filter(|e| e.op.as_deref() != Some(NOTHING));
    carries.map(|e| e.from)
}

impl Cell {
    /// Per state, whether something leads to it from an input.
    fn fed(&self) -> Vec<bool> {
        let mut fed = vec![true; self.inputs.len()];
        for node in &self.nodes {
            fed.push(read_by(node).any(|state| fed.get(state) == Some(&true)));
        }
        fed
    }

    /// Nodes without an effect on the output, counted from zero: they don't lead to it, or nothing leads to them.
    pub fn dead_nodes(&self) -> Vec<usize> {
        let (first, mut fed) = (self.inputs.len(), self.fed());
        let mut read = vec![false; fed.len()];
        let mark = |read: &mut Vec<bool>, state: usize| {
            if let Some(state) = read.get_mut(state) {
                *state = true;
            }
        };
        self.output.iter().for_each(|&s| mark(&mut read, s));
        for (i, node) in self.nodes.iter().enumerate().rev() {
            if read.get(first + i) == Some(&true) {
                read_by(node).for_each(|state| mark(&mut read, state));
            }
        }
        let mut live = fed.drain(first..).zip(read.drain(first..));
        (0..self.nodes.len())
            .filter(|_| live.next() != Some((true, true)))
            .collect()
    }

    /// Whether the output depends on an input: else the cell computes nothing.
    pub fn computes(&self) -> bool {
        let fed = self.fed();
        self.output.iter().any(|&s| fed.get(s) == Some(&true))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::arch::Edge;

    fn cell(inputs: usize, nodes: &[Vec<(usize, bool)>], output: Vec<usize>) -> Cell {
        let op = |carries: bool| Some(if carries { "conv" } else { NOTHING }.to_owned());
        let edge = |&(from, carries): &(usize, bool)| Edge {
            from,
            op: op(carries),
        };
        let node = |edges: &Vec<(usize, bool)>| Node {
            op: None,
            inputs: edges.iter().map(edge).collect(),
        };
        Cell {
            name: "cell".into(),
            inputs: (0..inputs).map(|i| format!("input {i}")).collect(),
            nodes: nodes.iter().map(node).collect(),
            output,
        }
    }

    /// What the cell puts out where state `s` is the set of paths from inputs to it: a list of visited nodes each.
    fn paths(cell: &Cell, state: usize) -> Vec<Vec<usize>> {
        let Some(node) = state.checked_sub(cell.inputs.len()) else {
            return vec![vec![]];
        };
        let before = read_by(&cell.nodes[node]).flat_map(|from| paths(cell, from));
        let through = |mut path: Vec<usize>| {
            path.push(node);
            path
        };
        before.map(through).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// A node has an effect where a path from an input to the output goes through it, found by walking all paths.
        #[test]
        fn nodes_have_an_effect_on_paths_alone(
            inputs in 1usize..3,
            raw in prop::collection::vec(prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..3), 1..6),
            output in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        ) {
            let nodes: Vec<Vec<(usize, bool)>> = raw
                .iter()
                .enumerate()
                .map(|(i, edges)| edges.iter().map(|(from, c)| (from.index(inputs + i), *c)).collect())
                .collect();
            let output = output.iter().map(|o| o.index(inputs + nodes.len())).collect();
            let cell = cell(inputs, &nodes, output);
            let all: Vec<Vec<usize>> = cell.output.iter().flat_map(|&o| paths(&cell, o)).collect();
            let dead: Vec<usize> = (0..nodes.len()).filter(|n| !all.iter().any(|p| p.contains(n))).collect();
            prop_assert_eq!(cell.dead_nodes(), dead);
            prop_assert_eq!(cell.computes(), !all.is_empty());
        }
    }
}
