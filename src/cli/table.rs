//! `nasfw table`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use nasfw_analysis::record::Record;
use nasfw_analysis::table::{FIGURES, differing, figures, runs, worth};
use nasfw_framework::Result;
use nasfw_framework::registry::cost_in_words;
use nasfw_framework::settings::in_words;
use serde::Serialize;
use serde_json::{Value, json};

use super::columns;
use super::output::{format_of, say, say_json, write_file};
use super::runs::WIDTH;
use super::terminal::{Stream, width};

/// Columns that the names of figures and settings get.
const NAMES: usize = 28;
/// Columns that a run gets.
const RUN: usize = 13;
/// Figures whose text is too long for a table.
const LONG: [&str; 2] = ["genotype", "reason"];

/// Options of `table`.
#[derive(Debug, Args)]
pub struct Table {
    /// Run folders
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Write a CSV file instead, a row a run, with all settings
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    csv: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Table {
    /// Prints a table or JSON, or writes a CSV file.
    pub fn carry_out(self) -> Result<()> {
        if let Some(file) = &self.csv {
            format_of("--csv", file, &[("csv", ())])?;
        }
        let records: Result<Vec<Record>> = self.runs.iter().map(|run| Record::read(run)).collect();
        let records = records?;
        if let Some(file) = &self.csv {
            write_file(file, &runs(&records)?)?;
            if file.is_file() {
                say(format!("written to {}", file.display()));
            }
            return Ok(());
        }
        if self.json {
            let all: Vec<Value> = records.iter().map(as_json).collect();
            let value = json!({"runs": all, "differ": differing(&records)});
            return say_json("table of runs", &value);
        }
        for (i, record) in records.iter().enumerate() {
            say(format!("{}  {}", i + 1, record.path.display()));
        }
        let columns = width(Stream::Out).unwrap_or(WIDTH);
        // So many runs stand side by side, and the others below them.
        let beside = (columns.saturating_sub(NAMES) / RUN).max(1);
        let differing = differing(&records);
        for (i, some) in records.chunks(beside).enumerate() {
            let numbers: Vec<String> = (1..=some.len())
                .map(|n| (i * beside + n).to_string())
                .collect();
            let head = std::iter::once("").chain(numbers.iter().map(String::as_str));
            let head: Vec<&str> = head.collect();
            say(format!(
                "\n{}",
                columns::table(&head, &rows(some, &differing), columns, &[])
            ));
        }
        Ok(())
    }
}

/// A row a figure, then a row a setting in which the runs differ. What none of them has is left out.
fn rows(records: &[Record], differing: &[&String]) -> Vec<Vec<String>> {
    let row = |name: &str, of: &dyn Fn(&Record) -> String| {
        let cells: Vec<String> = records.iter().map(of).collect();
        let some = cells.iter().any(|cell| !cell.is_empty());
        some.then(|| std::iter::once(name.to_owned()).chain(cells).collect())
    };
    let own = FIGURES.iter().enumerate();
    let own = own.filter(|(_, name)| !LONG.contains(name));
    let own = own.map(|(i, name)| row(name, &|r| rounded(&figures(r)[i])));
    let names: BTreeSet<String> = records.iter().flat_map(|r| worth(r).into_keys()).collect();
    let worth = names.iter().map(|name| {
        let value = |r: &Record| {
            let metric = name.strip_prefix("metric.").unwrap_or(name);
            // Behind its name may stand that it is predicted.
            let bare = metric.split(' ').next().unwrap_or(metric);
            let shown = |v: &f64| cost_in_words(bare, *v).unwrap_or_else(|| format!("{v:.4}"));
            worth(r).get(name).map_or(String::new(), shown)
        };
        row(name, &value)
    });
    let settings = differing.iter().map(|key| {
        let value = |r: &Record| r.settings.get(*key).map(in_words).unwrap_or_default();
        row(key, &value)
    });
    own.chain(worth).chain(settings).flatten().collect()
}

/// A number with as many digits as a reader needs; any other text as it is.
fn rounded(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(number) if text.contains('.') => format!("{number:.4}"),
        _ => text.to_owned(),
    }
}

/// Numbers, also those that JSON has no digits for.
#[derive(Serialize)]
struct Numbers(#[serde(with = "nasfw_framework::lossless")] BTreeMap<String, f64>);

fn as_json(record: &Record) -> Value {
    let found = record.outcome.as_ref();
    json!({
        "run": record.name(),
        "path": record.path,
        "state": record.state.word(),
        "genotype": found.map(|o| &o.genotype),
        "reason": found.map(|o| &o.reason),
        "epochs": found.map(|o| o.epochs),
        "steps": found.map(|o| o.steps),
        "entropy": found.and_then(|o| o.entropy),
        "sharpness": found.and_then(|o| o.sharpness),
        "worth": Numbers(worth(record)),
        "settings": record.settings,
    })
}
