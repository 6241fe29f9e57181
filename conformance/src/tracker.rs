//! What every tracker must hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nasfw_framework::arch::{Choice, Genotype, Group, Role, Row};
use nasfw_framework::events::{Event, Meter};
use nasfw_framework::listen::lock;
use nasfw_framework::outcome::Outcome;
use nasfw_framework::registry::Plugin;
use nasfw_framework::tracker::{Tracked, Tracker};
use nasfw_framework::{Error, Result};
use serde_json::{Value, json};

use super::report::{Report, Verdict};
use super::rig::Scratch;

/// Checks a tracker with these settings: it is told of a made-up run in a folder of its own, which is interrupted and goes
/// on.
pub fn tracker(plugin: &Plugin, section: &Value) -> Report {
    let mut report = Report::new(format!("tracker `{}`", plugin.name));
    let parsed = || plugin.tracker(section);
    report.check("tracks", "a whole run is tracked", || {
        let run = Scratch::new()?;
        tracked(run.path(), &*parsed()?, false, &whole(), true)?;
        Ok(Verdict::Held)
    });
    report.check(
        "goes-on",
        "a run that was interrupted, or killed, goes on in another process",
        || {
            let (run, tracker) = (Scratch::new()?, parsed()?);
            let process = |goes_on, events: &[Vec<Event>], whole| {
                tracked(run.path(), &*tracker, goes_on, &events.concat(), whole)
            };
            let interrupted = vec![Event::Interrupted { step: 4 }];
            process(false, &[first(), part(0), interrupted], false)?;
            // Killed: the listener goes away without a word.
            process(true, &[started(4), part(4)], false)?;
            process(true, &[started(4), part(4), end()], true)?;
            Ok(Verdict::Held)
        },
    );
    report.check(
        "takes-what-comes",
        "numbers that are none, names of all kinds, steps that are rolled back",
        || {
            let run = Scratch::new()?;
            let back = Event::Control {
                epoch: 1,
                what: "roll back to the end of epoch 0".into(),
            };
            let events = [first(), part(4), vec![back], odd(), part(0), end()].concat();
            tracked(run.path(), &*parsed()?, false, &events, true)?;
            Ok(Verdict::Held)
        },
    );
    report.check(
        "keeps-to-its-own-files",
        "in the run folder it writes under names that begin with its own, and nothing else",
        || {
            let run = Scratch::new()?;
            let kept = run.path().join("config.toml");
            fs::write(&kept, "seed = 0\n").map_err(Error::io("write", &kept))?;
            tracked(run.path(), &*parsed()?, false, &whole(), true)?;
            let whole = fs::read_to_string(&kept).is_ok_and(|text| text == "seed = 0\n");
            if !whole {
                return Ok(Verdict::Broken("it changed config.toml".into()));
            }
            let foreign = names(run.path())?
                .into_iter()
                .find(|name| name != "config.toml" && !name.starts_with(plugin.name));
            Ok(foreign.map_or(Verdict::Held, |name| {
                Verdict::Broken(format!("it wrote `{name}`"))
            }))
        },
    );
    report
}

/// One process of the run in a folder: tells of events and, if it comes to its end, of what was found.
fn tracked(
    run: &Path,
    tracker: &dyn Tracker,
    goes_on: bool,
    events: &[Event],
    whole: bool,
) -> Result<()> {
    let step = match events.first() {
        Some(Event::Started { step, .. }) => *step,
        _ => 0,
    };
    let listener = tracker.track(Tracked {
        run,
        config: &json!({ "common": { "seed": 0 }, "strategy": { "name": "made-up", "lr": 0.1 } }),
        groups: &groups(),
        step,
        goes_on,
    })?;
    for event in events {
        lock(&listener).event(event)?;
    }
    match whole {
        true => lock(&listener).found(&outcome()),
        false => Ok(()),
    }
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(Error::io("read", folder))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

fn genotype() -> Genotype {
    Genotype {
        space: "made-up".into(),
        cells: vec![],
    }
}

fn groups() -> Vec<Group> {
    let row = Row {
        name: "row".into(),
        candidates: vec!["one".into(), "other".into()],
        keep: 1,
    };
    vec![Group {
        name: "made-up".into(),
        role: Role::Operations,
        rows: vec![row],
        edges: None,
    }]
}

fn started(step: u64) -> Vec<Event> {
    vec![Event::Started {
        step,
        epochs: 2,
        steps_per_epoch: 4,
        budget: None,
        done: step as f64 / 8.0,
        device: "CPU".into(),
        weights: 10,
        arch_params: 2,
        groups: groups(),
    }]
}

fn first() -> Vec<Event> {
    let events = vec![architecture(0, Some(0.5)), Event::Checkpoint { step: 0 }];
    [started(0), events].concat()
}

/// A short run.
fn whole() -> Vec<Event> {
    [first(), part(0), end()].concat()
}

/// Four steps after `step`.
fn part(step: u64) -> Vec<Event> {
    let mut events: Vec<Event> = (step + 1..=step + 4)
        .map(|step| progress(step, "plain", 1.0 / step as f64))
        .collect();
    events.push(architecture(step + 4, Some(0.25)));
    events.push(Event::Pictures {
        step: step + 4,
        epoch: step / 4 + 1,
        pictures: [("picture".to_owned(), vec![vec![0.0, 1.0]])].into(),
    });
    events.push(Event::Checkpoint { step: step + 4 });
    events
}

fn odd() -> Vec<Event> {
    vec![
        progress(5, "ε of the generator @12, \"quoted\"\n", f64::NAN),
        progress(6, "", f64::INFINITY),
        progress(7, "../up", f64::NEG_INFINITY),
        architecture(7, None),
    ]
}

fn end() -> Vec<Event> {
    vec![Event::Finished {
        step: 8,
        reason: "all epochs are done".into(),
        seconds: 1.0,
        peak_memory: None,
    }]
}

fn progress(step: u64, name: &str, value: f64) -> Event {
    let meter = Meter {
        loss: value,
        accuracy: 0.5,
        top5: None,
        images: 8.0,
    };
    Event::Progress {
        step,
        epoch: step / 4,
        meters: [("train".to_owned(), meter)].into(),
        entropy: Some(0.5),
        lr: 0.1,
        scalars: [(name.to_owned(), value)].into(),
        done: step as f64 / 8.0,
        seconds: 0.1,
    }
}

fn architecture(step: u64, entropy: Option<f64>) -> Event {
    Event::Architecture {
        step,
        epoch: step / 4,
        images: 8 * step,
        seconds: 0.1,
        simulated: 0.0,
        marginals: entropy.map(|_| vec![vec![vec![0.25, 0.75]]]),
        entropy,
        sharpness: entropy.map(|_| 0.75),
        genotype: genotype(),
        metrics: entropy.map(|_| metrics()),
        regret: None,
        known: None,
        trust: Default::default(),
    }
}

fn metrics() -> BTreeMap<String, f64> {
    [("test@12/made-up".to_owned(), 90.0)].into()
}

fn outcome() -> Outcome {
    Outcome {
        genotype: genotype(),
        choice: Choice::new(vec![]),
        groups: groups(),
        space: Value::Null,
        facts: Default::default(),
        marginals: None,
        entropy: Some(0.25),
        sharpness: Some(0.75),
        metrics: Some(metrics()),
        regret: None,
        known: None,
        benchmark: None,
        curve: vec![],
        front: None,
        trust: Default::default(),
        epochs: 2,
        steps: 8,
        reason: "all epochs are done".into(),
    }
}
