//! The trials that a plan asks for.

use std::collections::{BTreeMap, BTreeSet};

use nasfw_framework::Result;
use serde::{Deserialize, Serialize};

use super::plan::{Entry, PlanFile};
use nasfw_framework::budget::Budget;

/// One run of the comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Name of its run folder.
    pub id: String,
    /// Label of the strategy.
    pub strategy: String,
    /// Space, as in results.
    pub space: String,
    /// Dataset; none for the space's own.
    pub dataset: Option<String>,
    /// Budget.
    pub budget: Budget,
    /// Seed.
    pub seed: u64,
    /// Settings: dotted key, value as TOML, and where it comes from, for messages.
    pub options: Vec<(String, String, String)>,
}

impl PlanFile {
    /// All trials, seed after seed, so that a comparison that is cut short has as many of each strategy.
    ///
    /// `space_options` are the settings that choose a space: dotted key and value as TOML.
    ///
    /// # Errors
    /// What `space_options` has to say.
    pub fn trials(
        &self,
        space_options: impl Fn(&str) -> Result<Vec<(String, String)>>,
    ) -> Result<Vec<Trial>> {
        let plan = &self.plan;
        let spaces: Vec<_> = plan
            .spaces
            .iter()
            .enumerate()
            .map(|(i, s)| Ok((s, format!("spaces[{i}]"), space_options(s)?)))
            .collect::<Result<_>>()?;
        let datasets: Vec<Option<(usize, &String)>> = if plan.datasets.is_empty() {
            vec![None]
        } else {
            plan.datasets.iter().enumerate().map(Some).collect()
        };
        let mut trials = vec![];
        for seed in plan.seeds.list() {
            for budget in plan.budgets.iter().enumerate() {
                for space in &spaces {
                    for &dataset in &datasets {
                        for strategy in plan.strategies.iter().enumerate() {
                            trials.push(self.trial(seed, budget, space, dataset, strategy));
                        }
                    }
                }
            }
        }
        Ok(trials)
    }

    /// One trial. What is numbered comes with its place in its list.
    fn trial(
        &self,
        seed: u64,
        (b, budget): (usize, &Budget),
        (space, at_space, space_options): &(&String, String, Vec<(String, String)>),
        dataset: Option<(usize, &String)>,
        (i, strategy): (usize, &Entry),
    ) -> Trial {
        let (at, at_budget) = (format!("strategies[{i}]"), format!("budgets[{b}]"));
        let mut options: Vec<(String, String, String)> = vec![];
        let mut add = |key: &str, value: String, at: &str| {
            options.retain(|o| o.0 != key);
            options.push((key.to_owned(), value, at.to_owned()));
        };
        for (key, value) in leaves(&self.plan.set) {
            add(&key, value.to_string(), &format!("set.{key}"));
        }
        for (key, value) in leaves(&strategy.settings) {
            add(&key, value.to_string(), &format!("{at}.settings.{key}"));
        }
        add("strategy.name", quoted(&strategy.name), &at);
        if let Some(preset) = &strategy.preset {
            add("strategy.preset", quoted(preset), &at);
        }
        for (key, value) in space_options {
            add(key, value.clone(), at_space);
        }
        if let Some((d, name)) = dataset {
            add("dataset.name", quoted(name), &format!("datasets[{d}]"));
        }
        add(
            "trainer.budget.unit",
            quoted(budget.unit.name()),
            &at_budget,
        );
        add(
            "trainer.budget.amount",
            budget.amount.to_string(),
            &at_budget,
        );
        add("seed", seed.to_string(), "seeds");
        let space = short(space);
        let dataset = dataset.map(|(_, name)| name.clone());
        let parts = [
            Some(strategy.label.clone()),
            Some(space.clone()),
            dataset.clone(),
            Some(format!("{}{}", budget.amount, budget.unit.name())),
            Some(format!("s{seed}")),
        ];
        Trial {
            id: parts.into_iter().flatten().collect::<Vec<_>>().join("-"),
            strategy: strategy.label.clone(),
            space,
            dataset,
            budget: *budget,
            seed,
            options,
        }
    }
}

/// Settings that don't change what a trial finds: where files lie.
const PLACES: [&str; 3] = ["data_dir", "download", "benchmark.file"];

/// How the trials of a plan differ from those that were begun: those are gone, or have other settings. New ones are no
/// difference, so a plan may grow.
pub fn differences(begun: &[Trial], now: &[Trial]) -> Vec<String> {
    let now: BTreeMap<&str, &Trial> = now.iter().map(|t| (t.id.as_str(), t)).collect();
    let mut found = BTreeSet::new();
    for old in begun {
        let Some(new) = now.get(old.id.as_str()) else {
            found.insert(format!("trial {} is no longer in the plan", old.id));
            continue;
        };
        let of = |t: &Trial| -> BTreeMap<String, String> {
            let options = t.options.iter().filter(|o| !PLACES.contains(&o.0.as_str()));
            options.map(|(k, v, _)| (k.clone(), v.clone())).collect()
        };
        let (old_options, new_options) = (of(old), of(new));
        for key in old_options.keys().chain(new_options.keys()) {
            let show =
                |o: &BTreeMap<String, String>| o.get(key).map_or("not set", |v| v).to_owned();
            let (was, is) = (show(&old_options), show(&new_options));
            // Earlier versions did not keep the number of threads.
            let kept = key != "threads" || old_options.contains_key(key);
            if was != is && kept {
                found.insert(format!("`{key}` of {} was {was} and is {is}", old.strategy));
            }
        }
    }
    found.into_iter().collect()
}

/// A space's name, that of its file without the ending, or that of its class.
pub(super) fn short(space: &str) -> String {
    let Some(file) = space.strip_suffix(".toml") else {
        return space.rsplit(':').next().unwrap_or(space).to_owned();
    };
    file.rsplit('/').next().unwrap_or(file).to_owned()
}

/// As a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Leaves of a table with dotted keys; lists are leaves.
pub(super) fn leaves(table: &toml::Table) -> Vec<(String, toml::Value)> {
    let mut out = vec![];
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                let inner = leaves(inner).into_iter();
                out.extend(inner.map(|(k, v)| (format!("{key}.{k}"), v)));
            }
            leaf => out.push((key.clone(), leaf.clone())),
        }
    }
    out
}
