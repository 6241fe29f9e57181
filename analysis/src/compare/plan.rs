//! The plan of a comparison: a TOML file, read strictly, and the trials that it asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use nasfw_framework::config::{ConfigError, Origin, Problem};
use nasfw_framework::registry::similar;
use nasfw_framework::{Error, Result};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, Serialize};
use toml_edit::TableLike;

use super::{Budget, Unit};

/// Label of the control that searches at random with the same budget.
pub const RANDOM: &str = "random";
/// Label of the control that draws one architecture and trains nothing.
pub const RANDOM_ARCHITECTURES: &str = "random-architectures";

/// What is compared, as the file says it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Name of the comparison and of its folder; the file's name where it is empty.
    #[serde(default)]
    pub name: String,
    /// Folder that gets the comparison's folder.
    #[serde(default = "runs")]
    pub out: PathBuf,
    /// Who is compared. The two controls are added where they are not named.
    pub strategies: Vec<Entry>,
    /// Where they search: names, or TOML files that declare a space.
    pub spaces: Vec<String>,
    /// What they learn from; empty for each space's own dataset.
    #[serde(default)]
    pub datasets: Vec<String>,
    /// What is repeated with.
    pub seeds: Seeds,
    /// What each trial may spend.
    pub budgets: Vec<Budget>,
    /// Settings of all trials, with their full keys (`trainer.batch_size`).
    #[serde(default)]
    pub set: toml::Table,
    /// The metric that is compared; none for the rule of [`super::choose_metric`].
    pub metric: Option<String>,
    /// Level of the tests.
    #[serde(default = "level")]
    pub level: f64,
    /// Whether supernets are compared with the table.
    pub rank: Option<Rank>,
}

fn runs() -> PathBuf {
    "runs".into()
}

fn level() -> f64 {
    0.05
}

/// A strategy of a plan: its name, or a table.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The strategy.
    pub name: String,
    /// What it is called in the comparison; by default its name, and its preset after a dash.
    pub label: String,
    /// Its preset.
    pub preset: Option<String>,
    /// Its settings, with their full keys (`strategy.arch.lr`).
    pub settings: toml::Table,
}

impl Entry {
    fn new(name: &str, preset: Option<&str>) -> Self {
        Self {
            name: name.into(),
            label: match preset {
                Some(preset) => format!("{name}-{preset}"),
                None => name.into(),
            },
            preset: preset.map(str::to_owned),
            settings: toml::Table::new(),
        }
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            name: String,
            label: Option<String>,
            preset: Option<String>,
            #[serde(default)]
            settings: toml::Table,
        }
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Entry;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a strategy's name, or a table with its `name`")
            }
            fn visit_str<E>(self, name: &str) -> std::result::Result<Entry, E> {
                Ok(Entry::new(name, None))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> std::result::Result<Entry, A::Error> {
                let full = Full::deserialize(MapAccessDeserializer::new(map))?;
                let plain = Entry::new(&full.name, full.preset.as_deref());
                Ok(Entry {
                    label: full.label.unwrap_or(plain.label.clone()),
                    settings: full.settings,
                    ..plain
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// How often, or with which seeds, everything is repeated.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a number of seeds, or a list of seeds")]
pub enum Seeds {
    /// Seeds 0, 1, … so many.
    Count(u64),
    /// These.
    List(Vec<u64>),
}

impl Seeds {
    /// All of them.
    pub fn list(&self) -> Vec<u64> {
        match self {
            Self::Count(n) => (0..*n).collect(),
            Self::List(seeds) => seeds.clone(),
        }
    }
}

/// How a trained supernet is compared with the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rank {
    /// Architectures drawn uniformly.
    #[serde(default = "hundred")]
    pub architectures: usize,
    /// Batches of the validation half for each; none for all.
    pub batches: Option<usize>,
}

fn hundred() -> usize {
    100
}

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

/// A plan with the place of everything that it says.
#[derive(Debug, Clone)]
pub struct PlanFile {
    /// What it says.
    pub plan: Plan,
    /// Its text.
    pub text: String,
    path: PathBuf,
    /// Dotted path, with indices of lists, to the bytes of the value.
    spans: BTreeMap<String, Range<usize>>,
}

impl PlanFile {
    /// Reads and checks a plan.
    ///
    /// # Errors
    /// A file that can't be read or is no TOML, unknown keys, wrong types, values out of range, and labels that come
    /// twice, each with its place in the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let problem = format!("{} can't be read: {e}", path.display());
            let help = "docs/comparing.md shows what a plan looks like";
            Error::Config(Box::new(
                ConfigError::one("", problem, None).with_help(help),
            ))
        })?;
        Self::parse(path, text)
    }

    /// As [`PlanFile::read`], of text that was read from `path`.
    ///
    /// # Errors
    /// As there.
    pub fn parse(path: &Path, text: String) -> Result<Self> {
        let mut file = Self {
            spans: BTreeMap::new(),
            path: path.to_owned(),
            plan: Plan {
                name: String::new(),
                out: runs(),
                strategies: vec![],
                spaces: vec![],
                datasets: vec![],
                seeds: Seeds::Count(0),
                budgets: vec![],
                set: toml::Table::new(),
                metric: None,
                level: level(),
                rank: None,
            },
            text,
        };
        let doc = file.text.parse::<toml_edit::Document<String>>();
        let doc = doc.map_err(|e| {
            let what = format!("this is not valid TOML: {}", e.message().trim());
            file.not_a_plan(what, e.span())
        })?;
        walk("", doc.as_table(), &mut file.spans);
        let parsed = toml::from_str::<Plan>(&file.text);
        file.plan = parsed.map_err(|e| file.not_a_plan(e.message().trim().to_owned(), e.span()))?;
        if file.plan.name.is_empty() {
            let stem = path.file_stem().unwrap_or_default();
            file.plan.name = stem.to_string_lossy().into_owned();
        }
        file.add_controls();
        file.check()?;
        Ok(file)
    }

    fn not_a_plan(&self, message: String, span: Option<Range<usize>>) -> Error {
        // "unknown field `sead`, expected one of `name`, `seeds`": what was meant is the one most like it.
        let mut quoted = message.split('`').skip(1).step_by(2);
        let hint = quoted
            .next()
            .filter(|_| message.starts_with("unknown "))
            .and_then(|unknown| similar(unknown, quoted))
            .map(|s| format!("did you mean `{s}`?"));
        Error::Config(Box::new(ConfigError {
            problems: vec![Problem {
                key: String::new(),
                message,
                hint,
                origin: span.map(|span| self.origin_of(span)),
            }],
            help: Some("docs/comparing.md explains every key of a plan".into()),
        }))
    }

    fn origin_of(&self, span: Range<usize>) -> Origin {
        let before = self.text.get(..span.start).unwrap_or_default();
        Origin::File {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            span,
        }
    }

    /// Where a path of the plan, or the nearest thing around it, was said.
    pub fn origin(&self, mut at: &str) -> Option<Origin> {
        loop {
            if let Some(span) = self.spans.get(at) {
                return Some(self.origin_of(span.clone()));
            }
            at = &at[..at.rfind(['.', '['])?];
        }
    }

    /// An error that points at a path of the plan.
    pub fn problem(&self, at: &str, message: impl Into<String>) -> Problem {
        Problem {
            key: at.into(),
            message: message.into(),
            hint: None,
            origin: self.origin(at),
        }
    }

    fn add_controls(&mut self) {
        let labels: BTreeSet<String> = self
            .plan
            .strategies
            .iter()
            .map(|s| s.label.clone())
            .collect();
        for control in [
            Entry::new(RANDOM, None),
            Entry::new(RANDOM, Some("architectures")),
        ] {
            if !labels.contains(&control.label) {
                self.plan.strategies.push(control);
            }
        }
    }

    fn check(&self) -> Result<()> {
        let plan = &self.plan;
        let mut problems = vec![];
        let mut wrong = |at: &str, message: String| problems.push(self.problem(at, message));
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
                let units = "it must be \"steps\", \"images\" or \"seconds\"";
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
            if rank.architectures < 2 {
                wrong("rank.architectures", "it must be at least 2".into());
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
            help: Some("docs/comparing.md explains every key of a plan".into()),
        })))
    }

    /// Labels of the strategies.
    pub fn labels(&self) -> Vec<String> {
        self.plan
            .strategies
            .iter()
            .map(|s| s.label.clone())
            .collect()
    }

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
            for (b, budget) in plan.budgets.iter().enumerate() {
                for (space, at_space, space_options) in &spaces {
                    for dataset in &datasets {
                        for (i, strategy) in plan.strategies.iter().enumerate() {
                            let at = format!("strategies[{i}]");
                            let mut options: Vec<(String, String, String)> = vec![];
                            let mut add = |key: &str, value: String, at: &str| {
                                options.retain(|o| o.0 != key);
                                options.push((key.to_owned(), value, at.to_owned()));
                            };
                            for (key, value) in leaves(&plan.set) {
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
                            let at_budget = format!("budgets[{b}]");
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
                            trials.push(Trial {
                                id: parts.into_iter().flatten().collect::<Vec<_>>().join("-"),
                                strategy: strategy.label.clone(),
                                space,
                                dataset,
                                budget: *budget,
                                seed,
                                options,
                            });
                        }
                    }
                }
            }
        }
        Ok(trials)
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
            if was != is {
                found.insert(format!("`{key}` of {} was {was} and is {is}", old.strategy));
            }
        }
    }
    found.into_iter().collect()
}

fn in_file_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// A space's name, or that of its file without the ending.
fn short(space: &str) -> String {
    let Some(file) = space.strip_suffix(".toml") else {
        return space.to_owned();
    };
    file.rsplit('/').next().unwrap_or(file).to_owned()
}

/// As a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Leaves of a table with dotted keys; lists are leaves.
fn leaves(table: &toml::Table) -> Vec<(String, toml::Value)> {
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

/// Collects where everything is said.
fn walk(at: &str, table: &dyn TableLike, spans: &mut BTreeMap<String, Range<usize>>) {
    for (key, item) in table.iter() {
        let path = if at.is_empty() {
            key.to_owned()
        } else {
            format!("{at}.{key}")
        };
        let key_span = table.get_key_value(key).and_then(|(k, _)| k.span());
        if let Some(span) = item.span().or(key_span) {
            spans.insert(path.clone(), span);
        }
        if let Some(inner) = item.as_table_like() {
            walk(&path, inner, spans);
        }
        if let Some(array) = item.as_array() {
            for (i, value) in array.iter().enumerate() {
                let path = format!("{path}[{i}]");
                if let Some(span) = value.span() {
                    spans.insert(path.clone(), span);
                }
                if let Some(inner) = value.as_inline_table() {
                    walk(&path, inner, spans);
                }
            }
        }
        if let Some(tables) = item.as_array_of_tables() {
            for (i, inner) in tables.iter().enumerate() {
                let path = format!("{path}[{i}]");
                if let Some(span) = inner.span() {
                    spans.insert(path.clone(), span);
                }
                walk(&path, inner, spans);
            }
        }
    }
}
