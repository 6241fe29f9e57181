//! Trainings that a table stands in for: what they show, and the simulated seconds that they cost.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::running::Search;
use crate::arch::Choice;
use crate::benchmark::{Benchmark, Score};
use crate::budget::Unit;
use crate::cost::Limits;
use crate::error::{Error, Result};

/// How long the training is that a metric is taken after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fidelity {
    /// As long as the benchmark trains.
    Full,
    /// As short as the benchmark knows of that metric: fewest epochs (`valid/cifar10@12`), else as [`Fidelity::Full`].
    Lowest,
    /// So many epochs: `valid/cifar10@12` for 12, and the whole training for as many as that has.
    Epochs(u64),
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
    /// The table lacks the architecture, its metric or, with a budget of simulated seconds, what it costs; or the architecture
    /// does not meet the search's limits. Nothing is spent.
    Unknown,
    /// What is left of the budget is less than the training costs. The budget is spent now.
    TooDear,
}

/// What a strategy counts that passes over architectures which a partial table lacks. Its state keeps it (with
/// `#[serde(flatten)]`, as two numbers).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gaps {
    #[serde(default)]
    missing: u64,
    #[serde(default)]
    missing_in_a_row: u64,
}

/// So many architectures one after the other that a partial table lacks end a search.
const MISSING: u64 = 1000;

impl Gaps {
    /// The table lacks an architecture. Logs how many there were.
    pub fn lacks(&mut self, search: &mut Search) {
        self.missing += 1;
        self.missing_in_a_row += 1;
        search.log("missing", self.missing as f64);
    }

    /// The table knows one.
    pub fn knows(&mut self) {
        self.missing_in_a_row = 0;
    }

    /// Architectures that the table lacked.
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Why to stop, after a thousand of them one after the other.
    pub fn stop(&self) -> Option<String> {
        (self.missing_in_a_row >= MISSING).then(|| {
            format!(
                "the table lacks the last {} architectures",
                self.missing_in_a_row
            )
        })
    }
}

impl Metric<'_> {
    /// The metric after the whole training, among those that are known.
    fn base<'k>(&self, known: &BTreeSet<&'k str>) -> Option<&'k str> {
        let full = || known.iter().filter(|name| !name.contains('@'));
        match self.name {
            "" => full().find(|n| n.starts_with("valid")).or(full().next()),
            name => known.get(name),
        }
        .copied()
    }

    /// The name that is meant among those that are known, where the whole training has `all` epochs.
    fn choose<'k>(&self, known: &BTreeSet<&'k str>, all: Option<u64>) -> Option<&'k str> {
        let base = self.base(known)?;
        match self.fidelity {
            Fidelity::Full => Some(base),
            Fidelity::Lowest => Some(shortened(base, known).min().map_or(base, |(_, name)| name)),
            Fidelity::Epochs(n) if Some(n) == all => Some(base),
            Fidelity::Epochs(n) => shortened(base, known).find(|s| s.0 == n).map(|s| s.1),
        }
    }
}

/// The metric `base` after shorter trainings: epochs and name.
fn shortened<'k>(base: &str, known: &BTreeSet<&'k str>) -> impl Iterator<Item = (u64, &'k str)> {
    known.iter().filter_map(move |name| {
        let epochs = name.strip_prefix(base)?.strip_prefix('@')?;
        Some((epochs.parse().ok()?, *name))
    })
}

/// Names of all metrics that a score has, and of those that the benchmark knows an optimum of.
fn known<'a>(score: &'a Score, benchmark: &'a dyn Benchmark) -> BTreeSet<&'a str> {
    let all = score.metrics.keys().chain(benchmark.optimum().keys());
    all.map(String::as_str).collect()
}

impl Search {
    /// Trains an architecture, as far as the benchmark can stand in for that: gives the metric, and spends the simulated
    /// seconds that the training would take. A training that goes beyond a budget of simulated seconds shows nothing
    /// (NAS-Bench-201's search scripts).
    ///
    /// # Errors
    /// A search without a benchmark, a metric that it does not have, and a table that can't be read.
    pub fn look_up(&mut self, choice: &Choice, metric: Metric<'_>) -> Result<LookUp> {
        self.look_further(choice, metric, None)
    }

    /// The same of a training that goes on: `after` a shorter one that was paid for, what is spent is the difference. (The
    /// shorter trainings of some tables have schedules of their own, so that there it is a stand-in.)
    ///
    /// # Errors
    /// Those of [`Search::look_up`].
    pub fn look_further(
        &mut self,
        choice: &Choice,
        metric: Metric<'_>,
        after: Option<Fidelity>,
    ) -> Result<LookUp> {
        let benchmark = self.need_benchmark(choice)?;
        let fits = |limits: &Arc<Limits>| limits.fits(self.space.as_ref(), choice);
        if !self.limits.as_ref().is_none_or(fits) {
            return Ok(LookUp::Unknown);
        }
        let Some(score) = benchmark.query(&self.space.genotype(choice))? else {
            return Ok(LookUp::Unknown);
        };
        let (known, all) = (known(&score, benchmark), benchmark.epochs());
        let Some(name) = metric.choose(&known, all) else {
            return Err(lacks(metric, &known));
        };
        let cost_of = |name| score.costs.get(name).copied();
        let before = after.map_or(Some(0.0), |fidelity| {
            cost_of(Metric { fidelity, ..metric }.choose(&known, all)?)
        });
        let (value, cost) = (score.metrics.get(name), cost_of(name).zip(before));
        let paid = self.settings.budget.unit == Unit::Simulated;
        let cost = cost.map(|(cost, before)| cost - before);
        let (Some(&value), Some(cost)) = (value, cost.or((!paid).then_some(0.0))) else {
            return Ok(LookUp::Unknown);
        };
        Ok(match self.simulate(cost) {
            true => LookUp::Score(value),
            false => LookUp::TooDear,
        })
    }

    /// The name of the benchmark's metric that is meant; none where a partial table lacks the architecture.
    ///
    /// # Errors
    /// Those of [`Search::look_up`].
    pub fn meant(&self, choice: &Choice, metric: Metric<'_>) -> Result<Option<String>> {
        let benchmark = self.need_benchmark(choice)?;
        let Some(score) = benchmark.query(&self.space.genotype(choice))? else {
            return Ok(None);
        };
        let (known, all) = (known(&score, benchmark), benchmark.epochs());
        let name = metric.choose(&known, all);
        Ok(Some(name.ok_or_else(|| lacks(metric, &known))?.to_owned()))
    }

    /// After which trainings the benchmark knows a metric of an architecture, the shortest first; none where a partial
    /// table lacks the architecture. The last is the whole training: [`Fidelity::Full`] where its epochs are not known.
    ///
    /// # Errors
    /// Those of [`Search::look_up`].
    pub fn fidelities(&self, choice: &Choice, name: &str) -> Result<Option<Vec<Fidelity>>> {
        let benchmark = self.need_benchmark(choice)?;
        let Some(score) = benchmark.query(&self.space.genotype(choice))? else {
            return Ok(None);
        };
        let (metric, known) = (
            Metric {
                name,
                fidelity: Fidelity::Full,
            },
            known(&score, benchmark),
        );
        let base = metric.base(&known).ok_or_else(|| lacks(metric, &known))?;
        let short: BTreeSet<u64> = shortened(base, &known).map(|(epochs, _)| epochs).collect();
        let whole = benchmark.epochs().map_or(Fidelity::Full, Fidelity::Epochs);
        let short = short.into_iter().map(Fidelity::Epochs);
        Ok(Some(short.filter(|f| *f != whole).chain([whole]).collect()))
    }

    fn need_benchmark(&self, choice: &Choice) -> Result<&dyn Benchmark> {
        self.benchmark().ok_or_else(|| Error::Incompatible {
            what: WHAT.into(),
            why: format!(
                "this search has no benchmark: none knows the architectures of space `{}`, or its table is not imported",
                self.space.genotype(choice).space
            ),
            help: "`nasfw bench list` shows the benchmarks, `nasfw bench import` makes a table of one".into(),
        })
    }
}

const WHAT: &str = "looking architectures up";

/// The error of a metric that the benchmark does not have.
fn lacks(metric: Metric<'_>, known: &BTreeSet<&str>) -> Error {
    let after = match metric.fidelity {
        Fidelity::Epochs(n) => format!(" after {n} epochs"),
        Fidelity::Full | Fidelity::Lowest => String::new(),
    };
    let known: Vec<&str> = known.iter().copied().collect();
    Error::Incompatible {
        what: WHAT.into(),
        why: format!(
            "the benchmark has no metric `{}`{after}; it has {}",
            metric.name,
            known.join(", ")
        ),
        help: "`--set strategy.metric=NAME`; empty takes the first one of validation".into(),
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
        use Fidelity::{Epochs, Full, Lowest};
        for (known, name, fidelity, meant) in [
            (&table, "", Full, Some("valid/c10")),
            (&table, "", Lowest, Some("valid/c10@12")),
            (&table, "valid/c100", Lowest, Some("valid/c100@4")),
            (&table, "valid/c10@108", Lowest, Some("valid/c10@108")),
            (&table, "test/c10", Full, Some("test/c10")),
            (&table, "valid/c", Lowest, None),
            (&table, "", Epochs(12), Some("valid/c10@12")),
            (&table, "", Epochs(108), Some("valid/c10@108")),
            (&table, "", Epochs(200), Some("valid/c10")),
            (&table, "", Epochs(11), None),
            (&table, "valid/c100", Epochs(12), None),
            (&toy, "", Full, Some("value")),
            (&toy, "", Lowest, Some("value")),
            (&BTreeSet::new(), "", Full, None),
        ] {
            let metric = Metric { name, fidelity };
            assert_eq!(
                metric.choose(known, Some(200)),
                meant,
                "{name} {fidelity:?}"
            );
        }
    }
}
