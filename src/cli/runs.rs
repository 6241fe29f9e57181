//! `nasfw runs`.

use std::cmp::Ordering;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use nasfw_analysis::compare::BEGUN;
use nasfw_analysis::listing::{self, Entry, Kind, Worth};
use nasfw_analysis::state::State;
use nasfw_framework::printable::counted;
use nasfw_framework::run::need_run;
use nasfw_framework::{Error, Result};
use serde_json::Value;

use super::columns;
use super::output::{say, say_json};
use super::terminal::{Stream, width};

/// Columns of a table that nobody gives another width.
pub const WIDTH: usize = 80;

/// Columns of strategy, space and dataset, which lines can do without before figures are cut.
const PARTS: [usize; 3] = [2, 3, 4];

/// Options of `runs`.
#[derive(Debug, Args)]
pub struct Runs {
    /// The folder of the runs, or the folder of a comparison: then its trials
    #[arg(default_value = "runs", value_name = "DIR")]
    dir: PathBuf,
    /// What comes first: the newest, the best (regret, then other figures), or by name
    #[arg(long, value_name = "KEY", default_value = "age")]
    sort: Key,
    /// Only those of this strategy
    #[arg(long, short = 's', value_name = "NAME")]
    strategy: Option<String>,
    /// Only those in this space
    #[arg(long, short = 'S', value_name = "NAME")]
    space: Option<String>,
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(State::ALL.map(State::word)))]
    state: Option<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What a list can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Key {
    Age,
    Name,
    State,
    Strategy,
    Space,
    Dataset,
    Worth,
}

impl Runs {
    /// Prints a table, or JSON.
    pub fn carry_out(self) -> Result<()> {
        let mut found = self.read()?;
        found.retain(|entry| self.wants(entry));
        let by = |of: fn(&Entry) -> &str| move |a: &Entry, b: &Entry| of(a).cmp(of(b));
        match self.sort {
            // As it was listed.
            Key::Age => {}
            Key::Name => found.sort_by(by(|e| &e.name)),
            Key::State => found.sort_by_key(|e| e.state),
            Key::Strategy => found.sort_by(by(|e| &e.strategy)),
            Key::Space => found.sort_by(by(|e| &e.space)),
            Key::Dataset => found.sort_by(by(|e| &e.dataset)),
            Key::Worth => found.sort_by(better),
        }
        let now = Timestamp::now();
        if self.json {
            let all: Result<Vec<Value>> = found.iter().map(|entry| as_json(entry, now)).collect();
            return say_json("list of runs", &all?);
        }
        if found.is_empty() {
            say(format!("no runs like that in {}", self.dir.display()));
            return Ok(());
        }
        let rows: Vec<Vec<String>> = found.iter().map(|entry| row(entry, now)).collect();
        let headings = [
            "name", "state", "strategy", "space", "dataset", "worth", "age",
        ];
        let columns = width(Stream::Out).unwrap_or(WIDTH);
        say(columns::table(&headings, &rows, columns, &PARTS));
        let broken = found.iter().filter_map(|e| Some((e, e.problem.as_ref()?)));
        for (entry, problem) in broken {
            say(format!("{} is broken: {problem}", entry.path.display()));
        }
        Ok(())
    }

    fn read(&self) -> Result<Vec<Entry>> {
        let wrong = |problem: String, help: &str| Error::Run {
            path: self.dir.clone(),
            problem,
            help: help.into(),
        };
        if need_run(&self.dir).is_ok() && !self.dir.join(BEGUN).is_file() {
            let help =
                "give the folder around it; `nasfw watch RUN` and `nasfw report RUN` show one run";
            return Err(wrong("this is one run".into(), help));
        }
        listing::list(&self.dir).map_err(|e| {
            let why = match e {
                Error::Io { source, .. } => source.to_string(),
                e => e.to_string(),
            };
            wrong(
                format!("it can't be read: {why}"),
                "give the folder that has the runs; `nasfw run` begins one in the folder `runs`",
            )
        })
    }

    fn wants(&self, entry: &Entry) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        same(&self.strategy, &entry.strategy)
            && same(&self.space, &entry.space)
            && same(&self.state, entry.state.word())
    }
}

/// A line of the table.
fn row(entry: &Entry, now: Timestamp) -> Vec<String> {
    let share = entry.done.filter(|d| *d < 1.0 && entry.kind == Kind::Run);
    let share = share.map_or(String::new(), |d| format!(" {:.0}%", (d * 100.0).floor()));
    let worth = match (&entry.worth, entry.trials) {
        (Some(worth), _) => shown(worth),
        (None, Some((done, all))) => format!("{done}/{}", counted(all, "trial")),
        (None, None) => String::new(),
    };
    vec![
        entry.name.clone(),
        format!("{}{share}", entry.state.word()),
        entry.strategy.clone(),
        entry.space.clone(),
        entry.dataset.clone(),
        worth,
        age(entry, now).map_or(String::new(), in_words),
    ]
}

/// What an architecture is worth, in a few words: regret where that is known.
pub fn shown(worth: &Worth) -> String {
    let number = match worth.regret {
        Some(regret) => format!("regret {regret:.4}"),
        None => format!("{} {:.4}", worth.metric, worth.value),
    };
    match worth.predicted {
        true => format!("{number} (predicted)"),
        false => number,
    }
}

/// The smaller regret first, then the larger figures of those without regret, then those of which nothing is known.
fn better(a: &Entry, b: &Entry) -> Ordering {
    let rank = |entry: &Entry| match &entry.worth {
        Some(Worth {
            regret: Some(r), ..
        }) if !r.is_nan() => (0, *r),
        Some(Worth {
            regret: None,
            value,
            ..
        }) if !value.is_nan() => (1, -*value),
        _ => (2, 0.0),
    };
    let (a, b) = (rank(a), rank(b));
    a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
}

/// Seconds since it began.
fn age(entry: &Entry, now: Timestamp) -> Option<i64> {
    entry
        .begun
        .map(|begun| (now.as_second() - begun.as_second()).max(0))
}

/// Seconds in words, in the largest unit of which there are two.
fn in_words(seconds: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let unit = units.into_iter().find(|(of, _)| seconds >= 2 * of);
    let (of, name) = unit.unwrap_or((1, "s"));
    format!("{} {name}", seconds / of)
}

fn as_json(entry: &Entry, now: Timestamp) -> Result<Value> {
    let mut value = serde_json::to_value(entry).map_err(|e| Error::Invalid {
        what: "list of runs".into(),
        why: e.to_string(),
    })?;
    value["age_seconds"] = age(entry, now).into();
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_the_largest_unit_of_which_there_are_two() {
        for (seconds, words) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7_199, "119 min"),
            (7_200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
            (31_536_000, "365 d"),
        ] {
            assert_eq!(in_words(seconds), words);
        }
    }
}
