//! The runs, trainings and comparisons of a folder, each in a few words. Only what these words need is read, so that a
//! folder of many long runs is listed in a moment. Nothing in it is changed or locked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nasfw_framework::events::Event;
use nasfw_framework::outcome::Outcome;
use nasfw_framework::printable::counted;
use nasfw_framework::run::{
    CHECKPOINTS, CONFIG, EVENTS, MANIFEST, Manifest, RESULT, RUN, RunFolder, name_of, read_json,
    read_json_if_there,
};
use nasfw_framework::{Error, Result};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::compare::{BEGUN, TRIALS, Trial, choose_metric, error_file};
use crate::state::State;

/// What to do about a file that can't be understood.
const HELP: &str =
    "the file was edited, cut or made by another version of nasfw; put the whole one back";

/// So many bytes at the end of an event file say where a run stands.
const TAIL: u64 = 1 << 20;

/// What lies in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A search or a training.
    Run,
    /// Trials of a comparison.
    Comparison,
}

/// What an architecture is worth, in one metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worth {
    /// Name of the metric.
    pub metric: String,
    /// Its value, in its own unit.
    #[serde(with = "nasfw_framework::lossless")]
    pub value: f64,
    /// Optimum minus value, where a benchmark knows the optimum.
    #[serde(with = "nasfw_framework::lossless")]
    pub regret: Option<f64>,
    /// Whether a model predicts it.
    pub predicted: bool,
}

/// A run, a training or a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Name of its folder.
    pub name: String,
    /// The folder, as it was named.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Where it stands.
    pub state: State,
    /// Name of the strategy; of a comparison's, if it has only one, else how many there are. Empty where it is not known.
    pub strategy: String,
    /// Name of the space, likewise.
    pub space: String,
    /// Name of the dataset, likewise.
    pub dataset: String,
    /// Seed of a run.
    pub seed: Option<u64>,
    /// Share of the planned search that is done, from 0 to 1; of a comparison, of its trials.
    #[serde(with = "nasfw_framework::lossless")]
    pub done: Option<f64>,
    /// Trials of a comparison: those that have a result, and all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trials: Option<(usize, usize)>,
    /// What was found is worth, or what would be derived now; none where nothing tells.
    pub worth: Option<Worth>,
    /// When it began; as text, RFC 3339.
    #[serde(serialize_with = "as_text")]
    pub begun: Option<Timestamp>,
    /// What is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

fn as_text<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    time.map(|t| t.to_string()).serialize(serializer)
}

impl Entry {
    /// A folder of which nothing is known but its name.
    fn new(path: &Path, kind: Kind, state: State) -> Self {
        Self {
            name: name_of(path),
            path: path.to_owned(),
            kind,
            state,
            strategy: String::new(),
            space: String::new(),
            dataset: String::new(),
            seed: None,
            done: None,
            trials: None,
            worth: None,
            begun: None,
            problem: None,
        }
    }

    fn broken(path: &Path, kind: Kind, problem: String) -> Self {
        Self {
            problem: Some(problem),
            ..Self::new(path, kind, State::Broken)
        }
    }
}

/// What lies in a folder, the newest first: its runs, and its comparisons. Of the folder of a comparison, its trials.
///
/// # Errors
/// A folder that can't be read. What is wrong with one run is said of that run.
pub fn list(folder: &Path) -> Result<Vec<Entry>> {
    let compared = folder.join(BEGUN).is_file();
    let inside = match compared {
        true => folder.join(TRIALS),
        false => folder.to_owned(),
    };
    // A comparison that has just begun has none yet.
    if compared && !inside.exists() {
        return Ok(vec![]);
    }
    let entries = fs::read_dir(&inside).map_err(Error::io("read", &inside))?;
    let mut found = vec![];
    for entry in entries {
        let path = entry.map_err(Error::io("read", &inside))?.path();
        found.extend(path.is_dir().then(|| entry_of(&path)).flatten());
    }
    for trial in found.iter_mut().filter(|_| compared) {
        if trial.state == State::Stopped && error_file(folder, &trial.name).exists() {
            trial.state = State::Failed;
        }
    }
    found.sort_by(|a, b| b.begun.cmp(&a.begun).then_with(|| a.name.cmp(&b.name)));
    Ok(found)
}

/// A folder as what it is; none if it is neither a run nor a comparison.
fn entry_of(path: &Path) -> Option<Entry> {
    let (kind, read): (Kind, fn(&Path) -> Result<Entry>) = if path.join(BEGUN).exists() {
        (Kind::Comparison, comparison)
    } else if path.join(RUN).exists() {
        (Kind::Run, run)
    } else {
        return rest(path);
    };
    Some(read(path).unwrap_or_else(|e| Entry::broken(path, kind, e.to_string())))
}

/// A folder without what makes it a run: one that is just being made, what is left of one, or something else.
fn rest(path: &Path) -> Option<Entry> {
    let files = [CONFIG, MANIFEST, EVENTS, RESULT, CHECKPOINTS];
    if !files.iter().any(|file| path.join(file).exists()) {
        return None;
    }
    Some(match RunFolder::holder(path) {
        Some(_) => Entry::new(path, Kind::Run, State::Waiting),
        None => Entry::broken(path, Kind::Run, format!("it has no {RUN}")),
    })
}

fn run(path: &Path) -> Result<Entry> {
    let settings: Value = read_json(&path.join(RUN), HELP)?;
    let name = |part: &str| settings[part]["name"].as_str().unwrap_or("?").to_owned();
    let manifest: Option<Manifest> = read_json_if_there(&path.join(MANIFEST), HELP)?;
    let outcome: Option<Outcome> = read_json_if_there(&path.join(RESULT), HELP)?;
    let dataset = name("dataset");
    let mut entry = Entry {
        strategy: name("strategy"),
        space: name("space"),
        seed: settings["common"]["seed"].as_u64(),
        begun: begun(manifest.as_ref(), &path.join(RUN)),
        ..Entry::new(path, Kind::Run, State::Done)
    };
    match &outcome {
        Some(found) => {
            entry.done = Some(1.0);
            let of = (found.metrics.as_ref(), found.regret.as_ref());
            entry.worth = worth(of, &|m| found.trust.predicted.contains_key(m), &dataset);
        }
        None => so_far(&mut entry, &dataset),
    }
    entry.dataset = dataset;
    Ok(entry)
}

/// When a run began: as its manifest says, or else when a file of it was written.
fn begun(manifest: Option<&Manifest>, file: &Path) -> Option<Timestamp> {
    let said = manifest.and_then(|m| m.started.parse().ok());
    said.or_else(|| Timestamp::try_from(file.metadata().ok()?.modified().ok()?).ok())
}

/// Where a run without a result stands, by the end of its event file.
fn so_far(entry: &mut Entry, dataset: &str) {
    let running = RunFolder::holder(&entry.path).is_some();
    let events = last_events(&entry.path.join(EVENTS));
    for event in &events {
        match event {
            Event::Started { done, .. } | Event::Progress { done, .. } => entry.done = Some(*done),
            Event::Architecture {
                metrics,
                regret,
                trust,
                ..
            } => {
                let of = (metrics.as_ref(), regret.as_ref());
                entry.worth = worth(of, &|m| trust.predicted.contains_key(m), dataset);
            }
            _ => {}
        }
    }
    entry.state = match running || entry.path.join(EVENTS).exists() {
        true => State::unfinished(running, events.last()),
        false => State::Waiting,
    };
}

/// The last events of a file. One that can't be read, or whose last event is longer than [`TAIL`], tells nothing.
fn last_events(path: &Path) -> Vec<Event> {
    let read = || -> std::io::Result<(u64, Vec<u8>)> {
        let mut file = File::open(path)?;
        let begin = file.metadata()?.len().saturating_sub(TAIL);
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = vec![];
        file.take(2 * TAIL).read_to_end(&mut bytes)?;
        Ok((begin, bytes))
    };
    let Ok((begin, bytes)) = read() else {
        return vec![];
    };
    // What comes first may be the end of a line.
    let lines = bytes.split(|b| *b == b'\n').skip(usize::from(begin > 0));
    lines
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

type Numbers = BTreeMap<String, f64>;

/// What metrics and regret amount to, in the one metric that says most: one of the benchmark's, or else the accuracy that
/// a training measured, or whatever else the strategy says of itself.
fn worth(
    (metrics, regret): (Option<&Numbers>, Option<&Numbers>),
    predicted: &dyn Fn(&str) -> bool,
    dataset: &str,
) -> Option<Worth> {
    let metrics = metrics?;
    let known: Vec<&str> = regret.into_iter().flatten().map(|r| r.0.as_str()).collect();
    let own = || {
        let names = metrics.keys().map(String::as_str);
        names
            .filter(|name| !name.contains("loss"))
            .collect::<Vec<_>>()
    };
    let metric = match choose_metric(&known, dataset) {
        Some(metric) => metric,
        None if metrics.contains_key("test-top1") => "test-top1",
        None => choose_metric(&own(), dataset)?,
    };
    Some(Worth {
        metric: metric.to_owned(),
        value: *metrics.get(metric)?,
        regret: regret.and_then(|r| r.get(metric)).copied(),
        predicted: predicted(metric),
    })
}

fn comparison(path: &Path) -> Result<Entry> {
    let file = path.join(BEGUN);
    let trials: Vec<Trial> = read_json(&file, HELP)?;
    let run = |trial: &Trial| path.join(TRIALS).join(&trial.id);
    let is_done = |trial: &&Trial| run(trial).join(RESULT).exists();
    let done = trials.iter().filter(is_done).count();
    let works = |trial: &Trial| RunFolder::holder(&run(trial)).is_some();
    let failed = |trial: &Trial| !is_done(&trial) && error_file(path, &trial.id).exists();
    // Trials can be jobs of a cluster, which nobody watches.
    let state = if RunFolder::holder(path).is_some() || trials.iter().any(works) {
        State::Running
    } else if done == trials.len() {
        State::Done
    } else if trials.iter().any(failed) {
        State::Failed
    } else {
        State::Stopped
    };
    let all = |what: &str, of: fn(&Trial) -> Option<&str>| {
        let mut names: Vec<&str> = trials.iter().filter_map(of).collect();
        names.sort_unstable();
        names.dedup();
        match names.as_slice() {
            [] => String::new(),
            [one] => (*one).to_owned(),
            many => counted(many.len(), what),
        }
    };
    Ok(Entry {
        strategy: all("strategy", |t| Some(&t.strategy)),
        space: all("space", |t| Some(&t.space)),
        dataset: all("dataset", |t| t.dataset.as_deref()),
        done: (!trials.is_empty()).then(|| done as f64 / trials.len() as f64),
        trials: Some((done, trials.len())),
        begun: begun(first_manifest(&trials, run).as_ref(), &file),
        ..Entry::new(path, Kind::Comparison, state)
    })
}

/// The manifest of the first trial that has one.
fn first_manifest(trials: &[Trial], run: impl Fn(&Trial) -> PathBuf) -> Option<Manifest> {
    let read = |trial: &Trial| read_json_if_there(&run(trial).join(MANIFEST), HELP).ok()?;
    trials.iter().find_map(read)
}
