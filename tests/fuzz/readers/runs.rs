//! What runs leave behind.

use std::fs;
use std::path::Path;

use nasfw::analysis::compare::{Comparison, text};
use nasfw::analysis::figures::{ComparisonKind, Kind};
use nasfw::analysis::record::Record;
use nasfw::analysis::report::Report;
use nasfw::framework::config::RunConfig;
use nasfw::framework::registry::Registry;
use nasfw::framework::run::{CHECKPOINTS, CONFIG, EVENTS, MANIFEST, RESULT, RUN, read_json};
use nasfw::framework::trainer::{Measured, Reopen};

use super::text::written;
use super::{Read, corpus, good, refused};

/// A whole run, of which one file is replaced by inputs.
fn copy(of: &str, to: &Path) {
    for entry in fs::read_dir(corpus().with_file_name("runs").join(of)).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    }
}

/// As `nasfw report` and `nasfw figure` of a run one file of which is replaced.
fn reported(folder: &Path, file: &'static str) -> Read {
    let run = folder.to_owned();
    copy("search", &run);
    Box::new(move |bytes| {
        fs::write(run.join(file), bytes).unwrap();
        let record = match Record::read(&run) {
            Ok(record) => record,
            Err(error) => return refused(&error),
        };
        if let Some(outcome) = &record.outcome {
            written(&outcome.genotype);
        }
        for kind in Kind::ALL {
            if let Ok(Some(figure)) = kind.draw(&record, None) {
                good::xml("a figure of a run", &figure.svg());
            }
        }
        good::page("a report of a run", &Report::Runs(vec![record]).html());
        true
    })
}

pub fn config(folder: &Path) -> Read {
    reported(folder, CONFIG)
}

pub fn result(folder: &Path) -> Read {
    reported(folder, RESULT)
}

pub fn events(folder: &Path) -> Read {
    reported(folder, EVENTS)
}

/// As `nasfw report` and `nasfw eval`.
pub fn manifest(folder: &Path) -> Read {
    Registry::load().unwrap();
    let report = reported(folder, MANIFEST);
    let checkpoint = folder.join(CHECKPOINTS).join(CHECKPOINT);
    fs::create_dir(folder.join(CHECKPOINTS)).unwrap();
    fs::copy(corpus().join("checkpoint/search.safetensors"), checkpoint).unwrap();
    let measure = measured(folder);
    Box::new(move |bytes| report(bytes) & measure())
}

/// The only checkpoint of a run.
const CHECKPOINT: &str = "000000001.safetensors";

/// As `nasfw eval` of a run that is whole.
fn measured(folder: &Path) -> impl Fn() -> bool + use<> {
    let run = folder.to_owned();
    let config = RunConfig::of_run(&run).unwrap();
    let fingerprint = config.fingerprint().unwrap();
    tch::set_num_threads(1);
    move || {
        let opened = config.trainer.reopen(Reopen {
            config: &config,
            fingerprint: &fingerprint,
            run: &run,
            checkpoint: None,
            on: Measured::Own,
        });
        match opened.and_then(|opened| opened.evaluate()) {
            Ok(found) => !found.genotype.to_string().is_empty(),
            Err(error) => refused(&error),
        }
    }
}

/// As `nasfw resume`, up to the first step, and `nasfw report`.
pub fn run_json(folder: &Path) -> Read {
    Registry::load().unwrap();
    let report = reported(folder, RUN);
    let run = folder.to_owned();
    Box::new(move |bytes| {
        let reported = report(bytes);
        let config = RunConfig::of_run(&run)
            .and_then(|config| Ok((config.fingerprint()?, config.space.build()?)));
        config.map_or_else(|error| refused(&error), |_| reported)
    })
}

/// As `nasfw eval RUN`.
fn reopened(of: &str, folder: &Path) -> Read {
    Registry::load().unwrap();
    copy(of, folder);
    fs::create_dir(folder.join(CHECKPOINTS)).unwrap();
    let file = folder.join(CHECKPOINTS).join(CHECKPOINT);
    let measure = measured(folder);
    Box::new(move |bytes| {
        fs::write(&file, bytes).unwrap();
        measure()
    })
}

pub fn checkpoint(folder: &Path) -> Read {
    reopened("search", folder)
}

pub fn weights(folder: &Path) -> Read {
    reopened("retraining", folder)
}

/// As `nasfw report` and `nasfw figure` of a comparison.
pub fn comparison(folder: &Path) -> Read {
    let folder = folder.to_owned();
    let file = folder.join("comparison.json");
    Box::new(move |bytes| {
        fs::write(&file, bytes).unwrap();
        let comparison: Comparison = match read_json(&file, "") {
            Ok(comparison) => comparison,
            Err(error) => return refused(&error),
        };
        drop(text(&comparison));
        drop(comparison.of_one_seed());
        for kind in ComparisonKind::ALL {
            if let Ok(Some(figure)) = kind.draw(&comparison, &[], None) {
                good::xml("a figure of a comparison", &figure.svg());
            }
        }
        good::page(
            "a report of a comparison",
            &Report::of_comparison(comparison, &folder).html(),
        );
        true
    })
}
