//! Which trackers are on, by all layers of settings; a run's numbers in other programs' files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nasfw::framework::run::{EVENTS, read_events};
use serde_json::Value;

use crate::program::{good, nasfw};

/// The trackers that a run would have.
fn on(dir: &Path, args: &[&str]) -> Value {
    let shown = good(dir, &[&["config", "show", "--toml"], args].concat());
    let config: toml::Table = toml::from_str(&shown).unwrap();
    assert!(!config.contains_key("tensorboard"), "{shown}");
    serde_json::to_value(&config["trackers"]).unwrap()
}

/// What is said of settings that are refused.
fn refused(dir: &Path, args: &[&str]) -> String {
    let out = nasfw(dir, &[&["config", "show"], args].concat());
    assert_eq!(out.status.code(), Some(2), "{args:?}");
    String::from_utf8(out.stderr).unwrap()
}

#[test]
fn trackers_are_a_list_and_the_stronger_layer_counts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let file = |text: &str| fs::write(dir.join("my.toml"), text).unwrap();
    let none: [&str; 0] = [];
    assert_eq!(on(dir, &[]), serde_json::json!(none));
    assert_eq!(
        on(dir, &["--tensorboard"]),
        serde_json::json!(["tensorboard"])
    );
    let both = ["--track", "mlflow", "--tensorboard"];
    assert_eq!(on(dir, &both), serde_json::json!(["mlflow", "tensorboard"]));
    assert_eq!(
        on(dir, &["--set", "trackers=mlflow, tensorboard"]),
        serde_json::json!(["mlflow", "tensorboard"])
    );
    let config = ["--config", "my.toml"];
    file(
        "trackers = [\"tensorboard\", \"tensorboard\"]\n[tracker.mlflow]\nuri = \"http://elsewhere\"\n",
    );
    assert_eq!(on(dir, &config), serde_json::json!(["tensorboard"]));
    assert_eq!(
        on(dir, &[&config[..], &["--track", "mlflow"]].concat()),
        serde_json::json!(["mlflow"])
    );
    // As older versions wrote it.
    file("tensorboard = true\n");
    assert_eq!(on(dir, &config), serde_json::json!(["tensorboard"]));
    file("tensorboard = false\n");
    assert_eq!(on(dir, &config), serde_json::json!(none));
}

#[test]
fn what_is_wrong_with_trackers_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let said = |args: &[&str], parts: &[&str]| {
        let text = refused(dir.path(), args);
        for part in parts {
            assert!(text.contains(part), "{args:?}: no `{part}` in {text}");
        }
    };
    said(&["--track", "tensorbord"], &["tracker", "tensorboard"]);
    said(
        &["--set", "trackers=3"],
        &["must be a list of names", "--set trackers=3"],
    );
    said(&["--set", "tensorboard=3"], &["must be true or false"]);
    said(&["--set", "tracker.mlflow.url=x"], &["tracker.mlflow.uri"]);
    let mlflow = |set: &str, parts: &[&str]| said(&["--track", "mlflow", "--set", set], parts);
    mlflow(
        "tracker.mlflow.uri=localhost:5000",
        &["http://", "tracker.mlflow.uri=localhost:5000"],
    );
    mlflow(
        "tracker.mlflow.uri=http://me:secret@host",
        &["MLFLOW_TRACKING_PASSWORD"],
    );
    mlflow(
        "tracker.mlflow.timeout=0",
        &["from 1 to 3600", "nasfw describe mlflow"],
    );
    mlflow("tracker.mlflow.timeout=soon", &["tracker.mlflow.timeout"]);
}

#[test]
fn runs_become_tables() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let search = |name: &str, more: &[&str]| {
        let args = [
            "run", "--space", "toy-conv", "--epochs", "1", "--name", name,
        ];
        good(dir, &[&args, more].concat());
    };
    search("a", &["--strategy", "darts"]);
    search("b", &["--strategy", "random"]);
    good(dir, &["export-runs", "runs/a", "runs/b", "--csv", "table"]);
    let read = |name: &str| -> (Vec<String>, Vec<Vec<String>>) {
        let mut reader = csv::Reader::from_path(dir.join("table").join(name)).unwrap();
        let text = |record: csv::StringRecord| record.iter().map(str::to_owned).collect::<Vec<_>>();
        let head = text(reader.headers().unwrap().clone());
        (head, reader.records().map(|r| text(r.unwrap())).collect())
    };
    let (head, rows) = read("runs.csv");
    let cell = |row: usize, column: &str| {
        let at = head.iter().position(|name| name == column).unwrap();
        rows[row][at].clone()
    };
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (cell(0, "run"), cell(1, "setting.strategy.name")),
        ("a".into(), "random".into())
    );
    assert_eq!(
        (cell(0, "state"), cell(0, "setting.trainer.epochs")),
        ("done".into(), "1".into())
    );
    let own: BTreeSet<&String> = head
        .iter()
        .filter(|name| name.starts_with("setting.strategy.arch."))
        .collect();
    assert!(!own.is_empty());
    for column in own {
        assert!(
            !cell(0, column).is_empty() && cell(1, column).is_empty(),
            "{column}"
        );
    }
    let result: Value =
        serde_json::from_str(&fs::read_to_string(dir.join("runs/a/result.json")).unwrap()).unwrap();
    assert_eq!(
        cell(0, "entropy").parse::<f64>().unwrap(),
        result["entropy"].as_f64().unwrap()
    );

    let (head, rows) = read("history.csv");
    assert_eq!(head, ["run", "step", "epoch", "name", "value"]);
    let numbers = |run: &str| -> Vec<(u64, String, f64)> {
        let events = read_events(&dir.join("runs").join(run).join(EVENTS)).unwrap();
        let numbers = events.iter().filter_map(|event| event.scalars());
        numbers
            .flat_map(|(step, all)| {
                all.into_iter()
                    .map(move |(name, value)| (step, name, value))
            })
            .collect()
    };
    for run in ["a", "b"] {
        let found: Vec<(u64, String, f64)> = rows
            .iter()
            .filter(|row| row[0] == run)
            .map(|row| {
                (
                    row[1].parse().unwrap(),
                    row[3].clone(),
                    row[4].parse().unwrap(),
                )
            })
            .collect();
        assert_eq!(found, numbers(run), "{run}");
    }
}
