//! Signs that a search collapses, as weight sharing is known to do: the supernet learns fastest through skip connections
//! (Zela et al. 2020, "Understanding and Robustifying Differentiable Architecture Search").

use super::state::State;

/// Skips in a normal cell from which on it counts as collapsed: the first stopping rule of DARTS+ (Liang et al. 2019).
const SKIPS: usize = 2;

/// What to beware of, in one line each. Before the first step there is nothing to be seen.
pub fn warnings(state: &State) -> Vec<String> {
    let mut found = vec![];
    if state.step == 0 {
        return found;
    }
    for cell in state.genotype.iter().flat_map(|g| &g.cells) {
        let on_edges = cell.nodes.iter().flat_map(|n| &n.inputs).map(|e| &e.op);
        let on_nodes = cell.nodes.iter().map(|n| &n.op);
        let ops: Vec<&str> = on_edges
            .chain(on_nodes)
            .flatten()
            .map(String::as_str)
            .collect();
        let count = |is: fn(&str) -> bool| ops.iter().filter(|op| is(op)).count();
        let (skips, nones) = (count(is_skip), count(is_none));
        if skips >= SKIPS && !cell.name.contains("reduc") {
            found.push(format!(
                "collapse? {skips} of {} operations of cell {} skip; DARTS+ stops at {SKIPS}",
                ops.len(),
                cell.name
            ));
        }
        if nones > 0 && 2 * nones >= ops.len() {
            found.push(format!(
                "collapse? {nones} of {} operations of cell {} are `none`",
                ops.len(),
                cell.name
            ));
        }
    }
    let decisions = state.edges.iter().filter(|e| e.operations);
    let (mut all, mut empty) = (0, 0);
    for edge in decisions {
        all += 1;
        empty += usize::from(is_skip(&edge.best) || is_none(&edge.best));
    }
    if 2 * empty > all {
        found.push(format!(
            "collapse? skip or none weighs most in {empty} of {all} decisions"
        ));
    }
    found
}

fn is_skip(op: &str) -> bool {
    op.contains("skip") || op.contains("identity")
}

fn is_none(op: &str) -> bool {
    op == "none" || op == "zero"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::state::tests::{about, architecture, genotype};
    use super::*;

    fn of(step: u64, weights: [f64; 3], cell: &str, ops: &[&str]) -> Vec<String> {
        let mut state = State::new(about());
        state.on_event(architecture(step, weights, genotype(cell, ops)));
        warnings(&state)
    }

    #[test]
    fn two_skips_in_a_normal_cell_and_empty_weights_are_said() {
        let conv = [0.1, 0.2, 0.7];
        assert!(of(5, conv, "normal", &["skip_connect", "conv"]).is_empty());
        assert!(of(5, conv, "reduction", &["skip_connect"; 4]).is_empty());
        assert!(of(0, conv, "normal", &["skip_connect"; 4]).is_empty());
        let two = of(5, conv, "normal", &["skip_connect", "identity", "conv"]);
        assert!(two.len() == 1 && two[0].contains("2 of 3"), "{two:?}");
        let none = of(5, conv, "normal", &["none", "conv"]);
        assert!(none.len() == 1 && none[0].contains("`none`"), "{none:?}");
        let weights = of(5, [0.4, 0.3, 0.3], "normal", &["conv"]);
        assert!(weights[0].contains("12 of 12"), "{weights:?}");
    }
}
