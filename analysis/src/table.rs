//! Runs side by side, and as CSV files for programs that know no run folder: a row a run, and a row a number.

use std::collections::{BTreeMap, BTreeSet};

use nasfw_framework::outcome::Outcome;
use nasfw_framework::settings::in_words;
use nasfw_framework::{Error, Result};

use crate::record::Record;

/// What [`figures`] has of every run, in this order.
pub const FIGURES: [&str; 7] = [
    "state",
    "genotype",
    "reason",
    "epochs",
    "steps",
    "entropy",
    "sharpness",
];

/// What became of a run, by [`FIGURES`]. What it lacks is empty.
pub fn figures(record: &Record) -> [String; FIGURES.len()] {
    let found = record.outcome.as_ref();
    let text = |f: fn(&Outcome) -> Option<String>| found.and_then(f).unwrap_or_default();
    [
        record.state.word().to_owned(),
        text(|o| Some(o.genotype.to_string())),
        text(|o| Some(o.reason.clone())),
        text(|o| Some(o.epochs.to_string())),
        text(|o| Some(o.steps.to_string())),
        text(|o| o.entropy.map(|v| v.to_string())),
        text(|o| o.sharpness.map(|v| v.to_string())),
    ]
}

/// What was found is worth: every metric (`metric.NAME`) and regret (`regret.NAME`), behind NAME `(predicted)` where a model
/// predicted it.
pub fn worth(record: &Record) -> BTreeMap<String, f64> {
    let numbers = record.outcome.iter().flat_map(|found| {
        let all = [("metric", &found.metrics), ("regret", &found.regret)];
        all.into_iter().flat_map(move |(kind, numbers)| {
            let numbers = numbers.iter().flatten();
            numbers.map(move |(name, value)| {
                let name = format!("{kind}.{}", found.trust.shown(name));
                (name, *value)
            })
        })
    });
    numbers.collect()
}

/// The settings in which runs differ, by their dotted keys, in the order of the alphabet. One that a run lacks is one.
pub fn differing(records: &[Record]) -> Vec<&String> {
    let keys: BTreeSet<&String> = records.iter().flat_map(|r| r.settings.keys()).collect();
    keys.into_iter()
        .filter(|key| {
            let mut values = records.iter().map(|r| r.settings.get(*key));
            let first = values.next();
            values.any(|v| Some(v) != first)
        })
        .collect()
}

/// A row a run: `run`, then [`FIGURES`], then every setting of any of them (`setting.KEY`) and what [`worth`] says, in the
/// order of the alphabet. What a run lacks is empty.
///
/// # Errors
/// None but a bug's.
pub fn runs(records: &[Record]) -> Result<Vec<u8>> {
    let rows: Vec<BTreeMap<String, String>> = records.iter().map(details).collect();
    let keys: BTreeSet<&String> = rows.iter().flat_map(BTreeMap::keys).collect();
    let first = std::iter::once("run").chain(FIGURES);
    let mut lines = vec![
        first
            .chain(keys.iter().map(|key| key.as_str()))
            .map(str::to_owned)
            .collect::<Vec<String>>(),
    ];
    for (record, row) in records.iter().zip(&rows) {
        let own = std::iter::once(record.name()).chain(figures(record));
        let more = keys
            .iter()
            .map(|key| row.get(*key).cloned().unwrap_or_default());
        lines.push(own.chain(more).collect());
    }
    csv(&lines)
}

/// A row a number: `run`, `step`, `epoch`, `name`, `value`, in the order of the events. Names are those that trackers use
/// ([`Event::scalars`](nasfw_framework::events::Event::scalars)).
///
/// # Errors
/// None but a bug's.
pub fn history(records: &[Record]) -> Result<Vec<u8>> {
    let mut lines = vec![["run", "step", "epoch", "name", "value"].map(str::to_owned)];
    for record in records {
        let run = record.name();
        for event in &record.events {
            let Some((step, numbers)) = event.scalars() else {
                continue;
            };
            let epoch = event.epoch().unwrap_or_default().to_string();
            lines.extend(numbers.into_iter().map(|(name, value)| {
                [
                    run.clone(),
                    step.to_string(),
                    epoch.clone(),
                    name,
                    value.to_string(),
                ]
            }));
        }
    }
    csv(&lines)
}

/// Settings, metrics and regrets of a run by the names of their columns.
fn details(record: &Record) -> BTreeMap<String, String> {
    let settings = record.settings.iter();
    let settings = settings.map(|(key, value)| (format!("setting.{key}"), in_words(value)));
    let numbers = worth(record).into_iter();
    settings
        .chain(numbers.map(|(name, value)| (name, value.to_string())))
        .collect()
}

/// Lines as a CSV file (RFC 4180).
fn csv<L>(lines: &[L]) -> Result<Vec<u8>>
where
    for<'a> &'a L: IntoIterator<Item = &'a String>,
{
    let failed = |e: String| Error::Invalid {
        what: "CSV file".into(),
        why: e,
    };
    let mut writer = csv::Writer::from_writer(vec![]);
    for line in lines {
        writer
            .write_record(line)
            .map_err(|e| failed(e.to_string()))?;
    }
    writer.into_inner().map_err(|e| failed(e.to_string()))
}
