//! The plan of a comparison: a TOML file, read strictly.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use nasfw_framework::config::{ConfigError, Document, Problem, TEXT_LIMIT};
use nasfw_framework::registry::similar;
use nasfw_framework::{Error, Result, input};
use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer};

use nasfw_framework::budget::Budget;

/// What to type about a plan that is wrong.
pub(super) const HELP: &str = "docs/comparing.md explains every key of a plan";

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

/// The most seeds of a plan.
pub const MOST_SEEDS: u64 = 100_000;
/// The most architectures that a supernet is compared with a table over.
pub const MOST_RANKED: u64 = 1_000_000;
/// The most trials of a plan.
pub const MOST_TRIALS: u64 = 1_000_000;

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
    /// How many.
    pub fn count(&self) -> u64 {
        match self {
            Self::Count(n) => *n,
            Self::List(seeds) => seeds.len() as u64,
        }
    }

    /// All of them; of a count at most `MOST_SEEDS`.
    pub fn list(&self) -> Vec<u64> {
        match self {
            Self::Count(n) => (0..(*n).min(MOST_SEEDS)).collect(),
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

/// A plan with the place of everything that it says.
#[derive(Debug, Clone)]
pub struct PlanFile {
    /// What it says.
    pub plan: Plan,
    /// The file.
    pub document: Document,
}

impl PlanFile {
    /// Reads and checks a plan.
    ///
    /// # Errors
    /// A file that can't be read or is no TOML, unknown keys, wrong types, values out of range, and labels that come
    /// twice, each with its place in the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = input::read_text(path, TEXT_LIMIT).map_err(|e| {
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
        let document = Document::parse(path, text, HELP)?;
        let plan = toml::from_str::<Plan>(document.text())
            .map_err(|e| not_a_plan(&document, e.message().trim(), e.span()))?;
        let mut file = Self { plan, document };
        if file.plan.name.is_empty() {
            let stem = path.file_stem().unwrap_or_default();
            file.plan.name = stem.to_string_lossy().into_owned();
        }
        file.add_controls();
        file.check()?;
        Ok(file)
    }

    /// An error that points at a path of the plan.
    pub fn problem(&self, at: &str, message: impl Into<String>) -> Problem {
        Problem {
            key: at.into(),
            message: message.into(),
            hint: None,
            origin: self.document.origin(at),
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

    /// Labels of the strategies.
    pub fn labels(&self) -> Vec<String> {
        self.plan
            .strategies
            .iter()
            .map(|s| s.label.clone())
            .collect()
    }
}

/// A file that is no plan: "unknown field `sead`, expected one of `name`, `seeds`". What was meant is the one most like
/// it.
fn not_a_plan(document: &Document, message: &str, span: Option<Range<usize>>) -> Error {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let hint = quoted
        .next()
        .filter(|_| message.starts_with("unknown "))
        .and_then(|unknown| similar(unknown, quoted))
        .map(|s| format!("did you mean `{s}`?"));
    Error::Config(Box::new(ConfigError {
        problems: vec![Problem {
            key: String::new(),
            message: message.to_owned(),
            hint,
            origin: span.map(|span| document.at(span)),
        }],
        help: Some(HELP.into()),
    }))
}
