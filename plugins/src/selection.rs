//! Choosing among architectures by how well they do with shared weights.

use std::collections::BTreeMap;

use nasfw_framework::prelude::*;
use serde::{Deserialize, Serialize};

/// An architecture with its accuracy in the supernet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Selected {
    pub choice: Choice,
    pub accuracy: f64,
}

/// Accuracies with the shared weights on the first `batches` batches of the validation half, all of them where that is 0.
/// The most accurate first; equals stay in their order.
pub(crate) fn rank(
    search: &Search,
    choices: impl IntoIterator<Item = Choice>,
    batches: usize,
) -> Result<Vec<Selected>> {
    let batches = (batches > 0).then_some(batches);
    let score = |choice: Choice| -> Result<Selected> {
        let meter = search.evaluate(&search.one_hot(&choice), Some(Split::Val), batches)?;
        let accuracy = meter.accuracy;
        Ok(Selected { choice, accuracy })
    };
    let mut scored = choices.into_iter().map(score).collect::<Result<Vec<_>>>()?;
    scored.sort_by(|a, b| b.accuracy.total_cmp(&a.accuracy));
    Ok(scored)
}

/// Accuracy of what is selected, in the supernet, on the validation images that it was selected by.
pub(crate) fn metrics(selected: Option<&Selected>) -> BTreeMap<String, f64> {
    selected
        .map(|s| ("supernet-accuracy".to_owned(), s.accuracy))
        .into_iter()
        .collect()
}

/// What a space makes of a drawn architecture (one that keeps something in every row), `p` being how probable its
/// candidates are: the same one, but where edges into a node compete. There the space's rule keeps the edges whose drawn
/// operations are the most probable; an edge that was drawn `none` only where there are no others.
pub(crate) fn derived(search: &Search, drawn: &Choice, p: &Marginals) -> Choice {
    let mut weights = p.clone();
    for (g, rows) in drawn.groups().iter().enumerate() {
        for (r, kept) in rows.iter().enumerate() {
            kept.iter().for_each(|&c| weights[g][r][c] += 1.0);
        }
    }
    search.space().derive(&weights)
}
