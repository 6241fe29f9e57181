//! Trainings that a table stands in for: what they show, and the simulated seconds that they cost.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::running::Search;
use crate::arch::Choice;
use crate::budget::Unit;
use crate::error::{Error, Result};

/// How long the training is that a metric is taken after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fidelity {
    /// As long as the benchmark trains.
    Full,
    /// As short as the benchmark knows of that metric: fewest epochs (`valid/cifar10@12`), else as [`Fidelity::Full`].
    Lowest,
}

/// What architectures are judged by.
#[derive(Debug, Clone, Copy)]
pub struct Metric<'a> {
    /// Name of a metric; empty means the benchmark's first one of validation, or its first one.
    pub name: &'a str,
    /// After which training.
    pub fidelity: Fidelity,
}

/// What a look-up gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LookUp {
    /// The metric. Higher is better.
    Score(f64),
    /// The table lacks the architecture, its metric or, with a budget of simulated seconds, what it costs. Nothing is
    /// spent.
    Unknown,
    /// What is left of the budget is less than the training costs. The budget is spent now.
    TooDear,
}

impl Metric<'_> {
    /// The name that is meant among those that are known.
    fn choose<'k>(&self, known: &BTreeSet<&'k str>) -> Option<&'k str> {
        let full = || known.iter().filter(|name| !name.contains('@'));
        let base = *match self.name {
            "" => full().find(|n| n.starts_with("valid")).or(full().next())?,
            name => known.get(name)?,
        };
        let epochs = |name: &str| -> Option<u64> {
            name.strip_prefix(base)?.strip_prefix('@')?.parse().ok()
        };
        let shortened = known.iter().filter_map(|name| Some((epochs(name)?, *name)));
        match self.fidelity {
            Fidelity::Full => Some(base),
            Fidelity::Lowest => Some(shortened.min().map_or(base, |(_, name)| name)),
        }
    }
}

impl Search {
    /// Trains an architecture, as far as the benchmark can stand in for that: gives the metric, and spends the simulated
    /// seconds that the training would take. A training that goes beyond a budget of simulated seconds shows nothing
    /// (NAS-Bench-201's search scripts).
    ///
    /// # Errors
    /// A search without a benchmark, a metric that it does not have, and a table that can't be read.
    pub fn look_up(&mut self, choice: &Choice, metric: Metric<'_>) -> Result<LookUp> {
        let wrong = |why: String, help: &str| Error::Incompatible {
            what: "looking architectures up".into(),
            why,
            help: help.into(),
        };
        let Some(benchmark) = &self.benchmark else {
            return Err(wrong(
                format!(
                    "this search has no benchmark: none knows the architectures of space `{}`, or its table is not \
                     imported",
                    self.space.genotype(choice).space
                ),
                "`nasfw bench list` shows the benchmarks, `nasfw bench import` makes a table of one",
            ));
        };
        let Some(score) = benchmark.query(&self.space.genotype(choice))? else {
            return Ok(LookUp::Unknown);
        };
        let all = score.metrics.keys().chain(benchmark.optimum().keys());
        let known: BTreeSet<&str> = all.map(String::as_str).collect();
        let Some(name) = metric.choose(&known) else {
            let known: Vec<&str> = known.into_iter().collect();
            return Err(wrong(
                format!(
                    "the benchmark has no metric `{}`; it has {}",
                    metric.name,
                    known.join(", ")
                ),
                "`--set strategy.metric=NAME`; empty takes the first one of validation",
            ));
        };
        let (value, cost) = (score.metrics.get(name), score.costs.get(name));
        let paid = self.settings.budget.unit == Unit::Simulated;
        let (Some(&value), Some(cost)) = (value, cost.copied().or((!paid).then_some(0.0))) else {
            return Ok(LookUp::Unknown);
        };
        Ok(match self.simulate(cost) {
            true => LookUp::Score(value),
            false => LookUp::TooDear,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metric_that_is_meant() {
        let table: BTreeSet<&str> = [
            "test/c10",
            "test/c10@12",
            "valid/c10",
            "valid/c10@108",
            "valid/c10@12",
            "valid/c100",
            "valid/c100@4",
        ]
        .into();
        let toy: BTreeSet<&str> = ["value", "other@3"].into();
        use Fidelity::{Full, Lowest};
        for (known, name, fidelity, meant) in [
            (&table, "", Full, Some("valid/c10")),
            (&table, "", Lowest, Some("valid/c10@12")),
            (&table, "valid/c100", Lowest, Some("valid/c100@4")),
            (&table, "valid/c10@108", Lowest, Some("valid/c10@108")),
            (&table, "test/c10", Full, Some("test/c10")),
            (&table, "valid/c", Lowest, None),
            (&toy, "", Full, Some("value")),
            (&toy, "", Lowest, Some("value")),
            (&BTreeSet::new(), "", Full, None),
        ] {
            let metric = Metric { name, fidelity };
            assert_eq!(metric.choose(known), meant, "{name} {fidelity:?}");
        }
    }
}
