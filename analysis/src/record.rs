//! A run folder, read. Nothing in it is changed or locked, so a run that is still going can be read, too.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use nasfw_framework::arch::{Group, Marginals, Role, Row};
use nasfw_framework::config::{RunConfig, flatten};
use nasfw_framework::events::Event;
use nasfw_framework::run::{CONFIG, EVENTS, MANIFEST, Manifest, RESULT, RUN, read_events};
use nasfw_framework::trainer::Outcome;
use nasfw_framework::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// What is known of a run.
#[derive(Debug, Clone)]
pub struct Record {
    /// The run folder, as it was named.
    pub path: PathBuf,
    /// Whether it is over.
    pub state: State,
    /// The command that made it, without the program's name; none if the configuration's first line does not tell.
    pub command: Option<String>,
    /// Every setting by its dotted key.
    pub settings: BTreeMap<String, Value>,
    /// The same as the text of `config.toml`.
    pub config: String,
    /// What the search decides: names of rows and candidates. Numbered where this program lacks the space.
    pub groups: Vec<Group>,
    /// Versions, device and data; none before the data is loaded.
    pub manifest: Option<Manifest>,
    /// Everything that happened so far.
    pub events: Vec<Event>,
    /// What was found; none before the end.
    pub outcome: Option<Outcome>,
}

/// Whether a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It ended and has a result.
    Finished,
    /// A process is working on it.
    Going,
    /// It has no result, and no process is working on it.
    Stopped,
}

impl State {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Going => "still going",
            Self::Stopped => "not finished",
        }
    }
}

/// The architecture at one moment of a run.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// The weights that derivation goes by.
    pub marginals: Option<&'a Marginals>,
    /// The benchmark's metrics.
    pub metrics: Option<&'a BTreeMap<String, f64>>,
    /// Optimum minus metric.
    pub regret: Option<&'a BTreeMap<String, f64>>,
}

impl Record {
    /// Reads a run folder.
    ///
    /// # Errors
    /// [`Error::Run`] for a folder that is no run, or whose files can't be understood; [`Error::Io`] for files that
    /// can't be read.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.join(RUN).is_file() {
            return Err(Error::Run {
                path: path.to_owned(),
                problem: format!("this is no run folder, it has no {RUN}"),
                help: "give the folder that `nasfw run` printed, for example `runs/NAME`".into(),
            });
        }
        let config_path = path.join(CONFIG);
        let config = fs::read_to_string(&config_path).map_err(Error::io("read", &config_path))?;
        let value: Value = toml::from_str(&config).map_err(|e| broken(&config_path, &e))?;
        let events_path = path.join(EVENTS);
        let events = match events_path.exists() {
            true => read_events(&events_path)?,
            false => Vec::new(),
        };
        let outcome: Option<Outcome> = optional(&path.join(RESULT))?;
        let state = match &outcome {
            Some(_) => State::Finished,
            None if is_locked(path) => State::Going,
            None => State::Stopped,
        };
        let command = config.lines().next().and_then(|line| {
            line.strip_prefix("# Made by: nasfw ")
                .map(|command| command.trim().to_owned())
        });
        let mut record = Self {
            path: path.to_owned(),
            state,
            command,
            settings: flatten(&value),
            config,
            groups: Vec::new(),
            manifest: optional(&path.join(MANIFEST))?,
            events,
            outcome,
        };
        record.groups = record.named().unwrap_or_else(|| record.numbered());
        Ok(record)
    }

    /// Name of the folder.
    pub fn name(&self) -> String {
        // `.` and `..` have no name of their own.
        let path = self.path.canonicalize();
        let path = path.as_deref().unwrap_or(&self.path);
        path.file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned()
    }

    /// A setting as text, empty if it isn't there.
    pub fn setting(&self, key: &str) -> String {
        match self.settings.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        }
    }

    /// The architecture before training and along the way, in the order of steps. What was rolled back is left out.
    pub fn moments(&self) -> Vec<Moment<'_>> {
        let mut per_epoch = 0;
        let mut moments: Vec<Moment<'_>> = Vec::new();
        for event in &self.events {
            if let Event::Started {
                steps_per_epoch, ..
            } = event
            {
                per_epoch = *steps_per_epoch;
            }
            if let Event::Architecture {
                step,
                epoch,
                marginals,
                metrics,
                regret,
                ..
            } = event
            {
                // Older runs have no steps here.
                let step = match *step {
                    0 => epoch * per_epoch,
                    step => step,
                };
                // The last word on a step counts.
                moments.retain(|m| m.step < step);
                moments.push(Moment {
                    step,
                    epoch: *epoch,
                    marginals: marginals.as_ref(),
                    metrics: metrics.as_ref(),
                    regret: regret.as_ref(),
                });
            }
        }
        moments
    }

    /// Rows and candidates by the names that the space gives them, if they fit the run's weights.
    fn named(&self) -> Option<Vec<Group>> {
        let text = fs::read_to_string(self.path.join(RUN)).ok()?;
        let config: RunConfig = serde_json::from_str(&text).ok()?;
        let groups = config.space.build().ok()?.spec().groups().to_vec();
        let shape: Vec<Vec<usize>> = groups
            .iter()
            .map(|g| g.rows.iter().map(|r| r.candidates.len()).collect())
            .collect();
        let fits = self
            .moments()
            .iter()
            .filter_map(|m| m.marginals)
            .all(|m| shape_of(m) == shape);
        fits.then_some(groups)
    }

    /// Rows and candidates by numbers.
    fn numbered(&self) -> Vec<Group> {
        let shape = self
            .moments()
            .iter()
            .find_map(|m| m.marginals.map(shape_of))
            .unwrap_or_default();
        let row = |i: usize, n: &usize| Row {
            name: format!("row {}", i + 1),
            candidates: (1..=*n).map(|c| format!("candidate {c}")).collect(),
            keep: 1,
        };
        let groups = shape.iter().enumerate().map(|(g, rows)| Group {
            name: format!("group {}", g + 1),
            role: Role::Operations,
            rows: rows.iter().enumerate().map(|(i, n)| row(i, n)).collect(),
        });
        groups.collect()
    }
}

/// Number of candidates per group and row.
fn shape_of(marginals: &Marginals) -> Vec<Vec<usize>> {
    let rows = |group: &Vec<Vec<f64>>| group.iter().map(Vec::len).collect();
    marginals.iter().map(rows).collect()
}

fn broken(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::Run {
        path: path.to_owned(),
        problem: format!("it can't be understood: {why}"),
        help:
            "the file was edited, cut or made by another version of nasfw; put the whole one back"
                .into(),
    }
}

/// A JSON file that may not be there yet.
fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| broken(path, &e))
}

/// Whether another process holds the run's lock.
fn is_locked(path: &Path) -> bool {
    File::open(path.join(".lock"))
        .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}
