//! The metric that is compared: one that is measured alike for all.

use std::collections::{BTreeMap, BTreeSet};

use nasfw_framework::cost::METRIC;
use nasfw_framework::front::HYPERVOLUME;
use nasfw_framework::trainer::Outcome;
use nasfw_framework::{Error, Result};

/// Which of several metrics is meant where nobody names one, and why.
///
/// It is `test/DATASET`, else `test`, else the first (by name) that begins with `test` and is not of shortened training
/// (`@`), else the first that begins with `valid`, else the first. None where there is no metric.
pub fn metric_and_reason<'a>(known: &[&'a str], dataset: &str) -> Option<(&'a str, &'static str)> {
    // What a network costs says nothing of what it is worth, and what a front covers is no figure of one architecture.
    let mut known: Vec<&str> = known
        .iter()
        .copied()
        .filter(|m| !m.starts_with(METRIC) && *m != HYPERVOLUME)
        .collect();
    known.sort_unstable();
    let own = format!("test/{dataset}");
    type Rule<'r> = (&'r dyn Fn(&str) -> bool, &'static str);
    let rules: [Rule<'_>; 5] = [
        (
            &|m| m.eq_ignore_ascii_case(&own),
            "the test figure of the dataset that is searched on",
        ),
        (&|m| m == "test", "the test figure"),
        (
            &|m| m.starts_with("test") && !m.contains('@'),
            "the first test figure of a whole training",
        ),
        (
            &|m| m.starts_with("valid") && !m.contains('@'),
            "the first validation figure of a whole training, for want of a test figure",
        ),
        (
            &|_| true,
            "the first by name, for want of a test or validation figure",
        ),
    ];
    rules.iter().find_map(|(rule, why)| {
        let found = known.iter().find(|m| rule(m))?;
        Some((*found, *why))
    })
}

/// The metric of [`metric_and_reason`] alone.
pub fn choose_metric<'a>(known: &[&'a str], dataset: &str) -> Option<&'a str> {
    metric_and_reason(known, dataset).map(|(metric, _)| metric)
}

/// Who has which metrics, of the finished trials of a setting. What a strategy measures of itself is nobody else's.
pub(super) struct Metrics<'a> {
    /// Those of each strategy; none of one that has finished nothing yet, or nothing that the benchmark knows.
    by: BTreeMap<&'a str, Option<BTreeSet<&'a str>>>,
    /// The benchmark's, which have a regret.
    benchmark: BTreeSet<&'a str>,
}

impl<'a> Metrics<'a> {
    /// Of trials: the label of each one's strategy, and its result if it has one.
    pub fn new(trials: impl Iterator<Item = (&'a str, Option<&'a Outcome>)>) -> Self {
        let mut found = Self {
            by: BTreeMap::new(),
            benchmark: BTreeSet::new(),
        };
        for (strategy, outcome) in trials {
            let own = found.by.entry(strategy).or_default();
            // Of an architecture that the benchmark lacks it has no figures, and says nothing of which it has.
            let Some(outcome) = outcome.filter(|o| o.known != Some(false)) else {
                continue;
            };
            let names = |of: &'a Option<BTreeMap<String, f64>>| of.iter().flatten().map(|m| &**m.0);
            own.get_or_insert_default().extend(names(&outcome.metrics));
            found.benchmark.extend(names(&outcome.regret));
        }
        found
    }

    /// Those that every strategy has, of those that have finished a trial.
    fn common(&self) -> BTreeSet<&'a str> {
        let mut sets = self.by.values().flatten();
        let first = sets.next().cloned().unwrap_or_default();
        sets.fold(first, |all, own| &all & own)
    }

    /// Whether a metric is one of the benchmark's.
    pub fn is_benchmarks(&self, metric: &str) -> bool {
        self.benchmark.contains(metric)
    }

    /// The benchmark's metric that is meant where the plan names none, and a sentence that says so; an error in words
    /// where there is none.
    pub fn choose(&self, dataset: &str) -> std::result::Result<(&'a str, String), String> {
        let common = self.common();
        let known: Vec<&str> = (&common & &self.benchmark).into_iter().collect();
        if let Some((metric, why)) = metric_and_reason(&known, dataset) {
            return Ok((
                metric,
                format!(
                    "`{metric}` is compared, {why} of the benchmark's {}: the plan names no `metric`",
                    known.len()
                ),
            ));
        }
        let nobody = self.by.values().flatten().all(BTreeSet::is_empty);
        Err(if nobody {
            "no benchmark knows this space, so there is nothing to compare; `nasfw bench import` imports a table, and \
             `benchmark.file` in `[set]` names one"
                .into()
        } else {
            let common: Vec<&str> = common.into_iter().collect();
            let named = match common.is_empty() {
                true => "no figure is had by all".into(),
                false => format!(
                    "`metric` of the plan can name one that all have: {}",
                    common.join(", ")
                ),
            };
            format!(
                "nothing is compared, as no metric is the benchmark's and had by every strategy: {}; {named}; `nasfw bench \
                 import` imports a table, and `benchmark.file` in `[set]` names one",
                self.list()
            )
        })
    }

    /// Checks that every strategy that has finished a trial has the metric that the plan names.
    ///
    /// # Errors
    /// One that some lack, with those that each has.
    pub fn check(&self, metric: &str, space: &str) -> Result<()> {
        let common = self.common();
        let finished = self.by.values().any(Option::is_some);
        if common.contains(metric) || !finished {
            return Ok(());
        }
        let common: Vec<&str> = common.into_iter().collect();
        Err(Error::Incompatible {
            what: format!("metric `{metric}` on space `{space}`"),
            why: format!("not every strategy's finished trials have it: {}", self.list()),
            help: match common.is_empty() {
                true => "there is none that all have; `nasfw bench import` imports a table, and `benchmark.file` in `[set]` \
                         names one"
                    .into(),
                false => format!("`metric` of the plan can be {}", common.join(", ")),
            },
        })
    }

    /// "darts has value; rsps has supernet-accuracy, value; random has none".
    fn list(&self) -> String {
        let one = |(strategy, own): (&&str, &BTreeSet<&str>)| {
            let names: Vec<&str> = own.iter().copied().collect();
            match names.is_empty() {
                true => format!("{strategy} has none"),
                false => format!("{strategy} has {}", names.join(", ")),
            }
        };
        let finished = self
            .by
            .iter()
            .filter_map(|(s, own)| Some((s, own.as_ref()?)));
        finished.map(one).collect::<Vec<_>>().join("; ")
    }
}
