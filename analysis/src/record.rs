//! A run folder, read. Nothing in it is changed or locked, so a run that is still going can be read, too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nasfw_framework::arch::{ArchSpec, Group, Marginals, Role, Row};
use nasfw_framework::config::flatten;
use nasfw_framework::events::Event;
use nasfw_framework::job::Evaluation;
use nasfw_framework::run::{
    CONFIG, EVALUATION, EVENTS, FILE_LIMIT, MANIFEST, Manifest, RESULT, RUN, RunFolder, name_of,
    need_run, read_events, read_json, read_json_if_there,
};
use nasfw_framework::settings::in_words;
use nasfw_framework::space::SpaceConfig;
use nasfw_framework::trainer::Outcome;
use nasfw_framework::trust::Trust;
use nasfw_framework::{Error, Result, input};
use serde_json::Value;

use crate::compare::{RANKING, Ranking, metric_and_reason};
use crate::state::State;

/// What to do about a file that can't be understood.
const HELP: &str =
    "the file was edited, cut or made by another version of nasfw; put the whole one back";

/// What is known of a run.
#[derive(Debug, Clone)]
pub struct Record {
    /// The run folder, as it was named.
    pub path: PathBuf,
    /// Where it stands.
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
    /// What `nasfw eval --keep` measured.
    pub evaluation: Option<Evaluation>,
    /// What `nasfw rank` measured.
    pub ranking: Option<Ranking>,
}

/// The architecture at one moment of a run.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Simulated seconds of training so far.
    pub simulated: f64,
    /// The weights that derivation goes by.
    pub marginals: Option<&'a Marginals>,
    /// The benchmark's metrics.
    pub metrics: Option<&'a BTreeMap<String, f64>>,
    /// Optimum minus metric.
    pub regret: Option<&'a BTreeMap<String, f64>>,
    /// How far to trust them: whether they were measured or predicted, above all.
    pub trust: &'a Trust,
}

impl Record {
    /// Reads a run folder.
    ///
    /// # Errors
    /// [`Error::Run`] for a folder that is no run, or whose files can't be understood; [`Error::Io`] for files that
    /// can't be read.
    pub fn read(path: &Path) -> Result<Self> {
        need_run(path)?;
        let config_path = path.join(CONFIG);
        let config =
            input::read_text(&config_path, FILE_LIMIT).map_err(Error::io("read", &config_path))?;
        let value: Value = toml::from_str(&config).map_err(|e| Error::Run {
            path: config_path.clone(),
            problem: format!("it can't be understood: {e}"),
            help: HELP.into(),
        })?;
        let events_path = path.join(EVENTS);
        let events = match events_path.exists() {
            true => read_events(&events_path)?,
            false => Vec::new(),
        };
        let outcome: Option<Outcome> = read_json_if_there(&path.join(RESULT), HELP)?;
        let state = match &outcome {
            Some(_) => State::Done,
            None if !events_path.exists() => State::Waiting,
            None => State::unfinished(RunFolder::holder(path).is_some(), events.last()),
        };
        let command = config.lines().next().and_then(|line| {
            line.strip_prefix("# Made by: ")
                .map(|command| command.trim().to_owned())
        });
        let mut record = Self {
            path: path.to_owned(),
            state,
            command,
            settings: flatten(&value),
            config,
            groups: Vec::new(),
            manifest: read_json_if_there(&path.join(MANIFEST), HELP)?,
            events,
            outcome,
            evaluation: read_json_if_there(&path.join(EVALUATION), HELP)?,
            ranking: read_json_if_there(&path.join(RANKING), HELP)?,
        };
        record.groups = record.named().unwrap_or_else(|| record.numbered());
        Ok(record)
    }

    /// Name of the folder.
    pub fn name(&self) -> String {
        name_of(&self.path)
    }

    /// A setting as text, empty if it isn't there.
    pub fn setting(&self, key: &str) -> String {
        self.settings.get(key).map(in_words).unwrap_or_default()
    }

    /// Of these metrics the one that counts: of a training its accuracy, of a search what the benchmark says of its dataset.
    pub fn main_metric<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        let trained = names.iter().find(|name| **name == "test-top1").copied();
        trained.or_else(|| metric_and_reason(names, &self.setting("dataset.name")).map(|c| c.0))
    }

    /// The same of the metrics whose regret is known along the way.
    pub fn main_regret(&self) -> Option<&str> {
        let moments = self.moments();
        let known = moments
            .iter()
            .find_map(|m| m.regret.filter(|r| !r.is_empty()))?;
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        self.main_metric(&names)
    }

    /// Whether a model predicted one of the values of a metric before training and along the way.
    pub fn is_predicted(&self, metric: &str) -> bool {
        self.moments().iter().any(|m| m.trust.is_predicted(metric))
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
                simulated,
                marginals,
                metrics,
                regret,
                trust,
                ..
            } = event
            {
                // Older runs have no steps here.
                let step = match *step {
                    0 => epoch.saturating_mul(per_epoch),
                    step => step,
                };
                // The last word on a step counts.
                while moments.pop_if(|m| m.step >= step).is_some() {}
                moments.push(Moment {
                    step,
                    epoch: *epoch,
                    simulated: *simulated,
                    marginals: marginals.as_ref(),
                    metrics: metrics.as_ref(),
                    regret: regret.as_ref(),
                    trust,
                });
            }
        }
        moments
    }

    /// Rows and candidates by the names that the run's events give them, or else the space, if they fit the run's weights.
    fn named(&self) -> Option<Vec<Group>> {
        let said = self.events.iter().find_map(|event| match event {
            Event::Started { groups, .. } if !groups.is_empty() => Some(groups.clone()),
            _ => None,
        });
        let groups = match said {
            Some(groups) => groups,
            None => {
                let config: Value = read_json(&self.path.join(RUN), HELP).ok()?;
                spec_of(&config)?.groups().to_vec()
            }
        };
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
            edges: None,
        });
        groups.collect()
    }
}

/// The decisions of the space in a `run.json`, whatever became of its other options since the run was made; none where
/// this program lacks the space.
pub fn spec_of(config: &Value) -> Option<ArchSpec> {
    let space: Box<dyn SpaceConfig> = serde_json::from_value(config.get("space")?.clone()).ok()?;
    Some(space.build().ok()?.spec().clone())
}

/// Number of candidates per group and row.
fn shape_of(marginals: &Marginals) -> Vec<Vec<usize>> {
    let rows = |group: &Vec<Vec<f64>>| group.iter().map(Vec::len).collect();
    marginals.iter().map(rows).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    pub(crate) const ROWS: usize = 5;
    pub(crate) const COLUMNS: usize = 4;
    const EPOCHS: u64 = 3;
    const STEPS: u64 = 10;

    /// Weights that depend on the step.
    pub(crate) fn weights(step: u64) -> Marginals {
        let row = |r: usize| {
            let raw: Vec<f64> = (0..COLUMNS)
                .map(|c| 1.0 + ((r * COLUMNS + c) as f64 * step as f64 / 7.0).sin())
                .collect();
            let sum: f64 = raw.iter().sum();
            raw.iter().map(|w| w / sum).collect()
        };
        vec![(0..ROWS).map(row).collect()]
    }

    /// A finished run, made up: three epochs of ten steps, weights every five steps.
    pub(crate) fn record() -> Record {
        let genotype = json!({"space": "toy", "cells": [{"name": "normal", "inputs": ["c_{k-1}"],
            "nodes": [{"inputs": [{"from": 0, "op": "skip"}]}], "output": [1]}]});
        let mut lines = vec![
            json!({"event": "started", "step": 0, "epochs": EPOCHS, "steps_per_epoch": STEPS,
            "device": "cpu, 1 thread", "weights": 10, "arch_params": 20}),
        ];
        for step in (0..=EPOCHS * STEPS).step_by(5) {
            let epoch = step / STEPS;
            let regret = 0.5 - step as f64 / 100.0;
            if step > 0 {
                let meter = json!({"loss": 2.0 / step as f64, "accuracy": 0.5, "images": 8.0});
                lines.push(json!({"event": "progress", "step": step, "epoch": epoch, "meters": {"full": meter},
                    "entropy": 0.5, "lr": 0.1, "scalars": {}, "seconds": 0.1}));
            }
            lines.push(json!({"event": "architecture", "step": step, "epoch": epoch, "marginals": weights(step),
                "entropy": 0.5, "sharpness": 0.5, "genotype": genotype, "metrics": {"value": 1.0 - regret},
                "regret": {"value": regret},
                "trust": {"decided": [["normal", 0.5]], "standing": {"value": {"rank": 80 - step, "of": 90, "mean": 0.25}}}}));
            if step % STEPS == 0 {
                lines.push(json!({"event": "pictures", "step": step, "epoch": epoch,
                    "pictures": {"hidden/normal/0": weights(step + 1)[0], "hidden/normal/1": weights(step + 2)[0]}}));
            }
        }
        lines.push(
            json!({"event": "finished", "step": 30, "reason": "all epochs are done", "seconds": 1.5,
            "peak_memory": 1_000_000}),
        );
        let events = lines
            .into_iter()
            .map(|l| serde_json::from_value(l).unwrap());
        let trust = json!({"decided": [["normal", 0.5]], "standing": {"value": {"rank": 7, "of": 90, "mean": 0.25}},
            "elsewhere": ["here", ["there", "<b>"]]});
        let criteria = json!([
            {"name": "value", "unit": "", "higher": true, "reference": 0.0, "ideal": 1.0},
            {"name": "cost/macs", "unit": "", "higher": false, "reference": 9e6, "ideal": 0.0}]);
        let member = |value: f64, macs: f64| json!({"genotype": genotype, "values": {"value": value, "cost/macs": macs}});
        let front = json!({"criteria": criteria, "hypervolume": 0.5, "evaluated": 4,
            "members": [member(0.8, 6e6), member(0.7, 2e6)],
            "points": [[0.8, 6e6], [0.7, 2e6], [0.6, 8e6], [0.65, 5e6]]});
        let outcome = json!({"front": front, "trust": trust, "genotype": genotype, "choice": [[[0]]], "facts": {}, "marginals": weights(30),
            "entropy": 0.5, "sharpness": 0.5, "metrics": {"value": 0.8}, "regret": {"value": 0.2}, "known": true,
            "epochs": 3, "steps": 30, "reason": "all epochs are done"});
        let manifest = json!({"nasfw": "0.1.0", "libtorch": "2.13.0", "plugins": {"a": "0.1.0"}, "device": "cpu",
            "platform": "x86_64 linux", "threads": 1, "data": "abc", "fingerprint": "def",
            "started": "2026-01-01T00:00:00Z"});
        let settings =
            json!({"strategy": {"name": "vim", "lr": 0.1}, "space": {"name": "toy"}, "seed": 1});
        Record {
            path: "runs/made-up".into(),
            state: State::Done,
            command: Some("run --strategy vim".into()),
            settings: flatten(&settings),
            config: "seed = 1\n".into(),
            groups: vec![Group {
                name: "normal".into(),
                role: Role::Operations,
                rows: (0..ROWS)
                    .map(|r| Row {
                        name: format!("{r}->{}", 2 + r),
                        candidates: ["none", "skip", "conv", "pool"].map(str::to_owned).to_vec(),
                        keep: 1,
                    })
                    .collect(),
                edges: None,
            }],
            manifest: Some(serde_json::from_value(manifest).unwrap()),
            events: events.collect(),
            evaluation: Some(serde_json::from_value(evaluation(&outcome["genotype"])).unwrap()),
            ranking: Some(serde_json::from_value(ranking()).unwrap()),
            outcome: Some(serde_json::from_value(outcome).unwrap()),
        }
    }

    /// Three classes, of which the second is mostly taken for the first.
    fn evaluation(genotype: &Value) -> Value {
        let class =
            |name: &str, accuracy| json!({"class": name, "images": 10, "accuracy": accuracy});
        json!({"epoch": 3, "genotype": genotype, "test": {"loss": 0.9, "accuracy": 0.7, "images": 30.0}, "cost": null,
            "classes": [class("cat", 0.9), class("<dog>", 0.2), class("ship", 1.0)],
            "confusion": [[9, 1, 0], [8, 2, 0], [0, 0, 10]]})
    }

    fn ranking() -> Value {
        let architecture = |k: u32| {
            json!({"genotype": format!("{k}"), "supernet": f64::from(k) / 10.0,
            "table": f64::from(90 + k % 3)})
        };
        let architectures: Vec<Value> = (0..5).map(architecture).collect();
        json!({"tau": 0.25, "p": 0.5, "metric": "value", "batches": null, "seed": 0, "epochs": 3,
            "architectures": architectures})
    }

    #[test]
    fn rows_without_a_space_are_numbered() {
        let groups = record().numbered();
        assert_eq!(groups[0].rows.len(), ROWS);
        assert_eq!(groups[0].rows[1].candidates[3], "candidate 4");
    }
}
