//! What a plan must hold beyond the types of its keys.

use std::collections::BTreeSet;

use nasfw_framework::config::ConfigError;
use nasfw_framework::{Error, Result};

use super::plan::{HELP, MOST_RANKED, MOST_SEEDS, MOST_TRIALS};
use super::plan::{PlanFile, RANDOM, RANDOM_ARCHITECTURES};
use super::trials::{leaves, short};
use nasfw_framework::budget::{Budget, Unit};

impl PlanFile {
    /// Checks ranges, names and repetitions; all problems at once.
    pub(super) fn check(&self) -> Result<()> {
        let file = self;
        let plan = &file.plan;
        let mut problems = vec![];
        let mut wrong = |at: &str, message: String| problems.push(file.problem(at, message));
        if plan.name.starts_with('.') || !plan.name.chars().all(in_file_names) {
            wrong("name", format!("`{}` can't name a folder", plan.name));
        }
        for (list, empty) in [
            ("spaces", plan.spaces.is_empty()),
            ("budgets", plan.budgets.is_empty()),
            ("seeds", plan.seeds.list().is_empty()),
        ] {
            if empty {
                wrong(list, "there must be at least one".into());
            }
        }
        let seeds = plan.seeds.count();
        let trials = [
            plan.strategies.len(),
            plan.spaces.len(),
            plan.datasets.len().max(1),
            plan.budgets.len(),
        ]
        .iter()
        .fold(seeds, |product, n| product.saturating_mul(*n as u64));
        if seeds > MOST_SEEDS {
            wrong(
                "seeds",
                format!("{seeds} are too many, {MOST_SEEDS} are the most"),
            );
        } else if trials > MOST_TRIALS {
            let what = "strategies × spaces × datasets × seeds × budgets";
            wrong(
                "",
                format!("{what} are {trials} trials, {MOST_TRIALS} are the most"),
            );
        }
        let mut seen = BTreeSet::new();
        for (i, s) in plan.strategies.iter().enumerate() {
            let at = format!("strategies[{i}]");
            if s.label.is_empty() || !s.label.chars().all(in_file_names) {
                wrong(
                    &at,
                    format!(
                        "label `{}`: letters, digits, `-`, `_` and `.` only",
                        s.label
                    ),
                );
            }
            if !seen.insert(&s.label) {
                wrong(
                    &at,
                    format!(
                        "label `{}` comes twice; give one of them another `label`",
                        s.label
                    ),
                );
            }
            let drawn = s.preset.as_deref() == Some("architectures");
            if (s.label == RANDOM && (s.name != RANDOM || drawn))
                || (s.label == RANDOM_ARCHITECTURES && (s.name != RANDOM || !drawn))
            {
                wrong(
                    &at,
                    format!("label `{}` is that of a control; choose another", s.label),
                );
            }
            for key in s.settings.keys() {
                if !["strategy", "trainer", "space", "dataset", "benchmark"].contains(&key.as_str())
                    && !key.contains('.')
                {
                    wrong(
                        &format!("{at}.settings.{key}"),
                        format!("settings have their full keys, for example `strategy.{key}`"),
                    );
                }
            }
        }
        let twice = |list: Vec<String>| {
            let mut seen = BTreeSet::new();
            list.into_iter()
                .enumerate()
                .find(|(_, x)| !seen.insert(x.clone()))
        };
        for (list, values) in [
            ("spaces", plan.spaces.iter().map(|s| short(s)).collect()),
            ("datasets", plan.datasets.clone()),
            (
                "seeds",
                plan.seeds.list().iter().map(u64::to_string).collect(),
            ),
            (
                "budgets",
                plan.budgets.iter().map(Budget::to_string).collect(),
            ),
        ] {
            if let Some((i, value)) = twice(values) {
                wrong(&format!("{list}[{i}]"), format!("{value} comes twice"));
            }
        }
        for (i, b) in plan.budgets.iter().enumerate() {
            if b.unit == Unit::None {
                let units = "it must be \"steps\", \"images\", \"seconds\" or \"simulated\"";
                wrong(&format!("budgets[{i}].unit"), units.into());
            } else if b.amount == 0 {
                wrong(
                    &format!("budgets[{i}].amount"),
                    "it must be at least 1".into(),
                );
            }
        }
        if !(plan.level > 0.0 && plan.level < 1.0) {
            wrong(
                "level",
                format!(
                    "{} is out of range, it must be above 0 and below 1",
                    plan.level
                ),
            );
        }
        if let Some(rank) = plan.rank {
            if !(2..=MOST_RANKED).contains(&(rank.architectures as u64)) {
                let message = format!("it must be from 2 to {MOST_RANKED}");
                wrong("rank.architectures", message);
            }
            if rank.batches == Some(0) {
                wrong(
                    "rank.batches",
                    "it must be at least 1; leave it away for all".into(),
                );
            }
        }
        for (key, rather) in [
            ("strategy.name", "strategies"),
            ("strategy.preset", "strategies"),
            ("space.name", "spaces"),
            ("dataset.name", "datasets"),
            ("seed", "seeds"),
            ("out", "out"),
            ("trainer.budget.unit", "budgets"),
            ("trainer.budget.amount", "budgets"),
        ] {
            let tables = plan
                .strategies
                .iter()
                .enumerate()
                .map(|(i, s)| (format!("strategies[{i}].settings"), &s.settings));
            for (at, table) in tables.chain([("set".to_owned(), &plan.set)]) {
                if leaves(table).iter().any(|(k, _)| k == key) {
                    wrong(
                        &format!("{at}.{key}"),
                        format!("this is said by `{rather}` of the plan"),
                    );
                }
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::Config(Box::new(ConfigError {
            problems,
            help: Some(HELP.into()),
        })))
    }
}

fn in_file_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}
