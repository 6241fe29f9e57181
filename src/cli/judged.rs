//! What a table says of architectures that are ranked.

use nasfw_analysis::compare::metric_and_reason;
use nasfw_framework::benchmark::Score;
use nasfw_framework::{Error, Result};
use std::collections::BTreeSet;

/// The metric to compare with, and why that one. `what` names the ranking in an error.
pub fn chosen_metric<'a>(
    known: &[&'a str],
    wanted: Option<&'a str>,
    dataset: &str,
    what: &str,
) -> Result<(&'a str, &'static str)> {
    let chosen = match wanted {
        Some(name) => known.contains(&name).then_some((name, "as asked")),
        None => metric_and_reason(known, dataset),
    };
    chosen.ok_or_else(|| Error::Incompatible {
        what: match wanted {
            Some(name) => format!("metric `{name}`"),
            None => what.into(),
        },
        why: match known.is_empty() {
            true => "the benchmark has no metric of what was drawn".into(),
            false => "the benchmark has none of this name".into(),
        },
        help: match known.is_empty() {
            true => "`nasfw bench info NAME` says what a table holds".into(),
            false => format!("`--metric` can be {}", known.join(", ")),
        },
    })
}

/// Metrics of which a benchmark says something of any architecture, in the order of the alphabet.
pub fn known<'a>(scores: impl IntoIterator<Item = &'a Score>) -> Vec<&'a str> {
    let names = scores.into_iter().flat_map(|s| s.metrics.keys());
    let names: BTreeSet<&str> = names.map(String::as_str).collect();
    names.into_iter().collect()
}

/// Of how many architectures a model predicts a metric.
pub fn predicted<'a>(scores: impl IntoIterator<Item = &'a Score>, metric: &str) -> usize {
    let guessed = |score: &&Score| score.predicted.contains_key(metric);
    scores.into_iter().filter(guessed).count()
}

/// A benchmark's metric of an architecture: one that is lacking would leave a hole in the ranking.
pub fn value_of(score: &Score, metric: &str, genotype: &str) -> Result<f64> {
    let value = score.metrics.get(metric).copied();
    value.ok_or_else(|| Error::Invalid {
        what: "table".into(),
        why: format!("it has no `{metric}` of {genotype}"),
    })
}
