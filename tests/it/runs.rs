//! `nasfw runs` and `nasfw table`: lists of what was searched and trained.

use std::fs;
use std::path::{Path, PathBuf};

use nasfw::framework::run::Process;
use serde_json::Value;

use crate::program::{flat, good, nasfw, tiny};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn json(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

/// A copy of a run that is part of the repository.
fn copy(from: &str, to: &Path) -> PathBuf {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(Path::new(ROOT).join(from)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    to.to_owned()
}

fn list(dir: &Path, args: &[&str]) -> Vec<Value> {
    let args = [&["runs"], args, &["--json"]].concat();
    serde_json::from_str(&good(dir, &args)).unwrap()
}

fn names(entries: &[Value]) -> Vec<&str> {
    entries
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect()
}

/// A run that ended with an error says so in the words of every list, and its files name rows and candidates.
#[test]
fn a_run_that_failed_is_called_failed_until_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut fails = vec![];
    for setting in [
        "trainer.weights.lr=1e38",
        "trainer.weights.clip=0",
        "dataset.images=512",
    ] {
        fails.extend(["--set", setting]);
    }
    let out = tiny(dir, "bad", &fails);
    assert_eq!(out.status.code(), Some(7), "{}", flat(&out.stderr));
    let good_one = tiny(dir, "whole", &[]);
    assert!(good_one.status.success(), "{}", flat(&good_one.stderr));
    for (name, word) in [("bad", "failed"), ("whole", "done")] {
        let found = list(dir, &["--state", word]);
        assert_eq!(names(&found), [name]);
        let run = format!("runs/{name}");
        let table: Value = serde_json::from_str(&good(dir, &["table", "--json", &run])).unwrap();
        assert_eq!(table["runs"][0]["state"], word);
    }
    let events = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(dir.join("runs").join(name).join("events.jsonl")).unwrap();
        text.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    };
    let bad = events("bad");
    let last = bad.last().unwrap();
    assert_eq!(last["event"], "failed");
    assert!(
        last["error"].as_str().unwrap().contains("is not finite"),
        "{last}"
    );

    let whole = events("whole");
    assert!(whole.iter().all(|event| event["time"].is_string()));
    let result = json(&dir.join("runs/whole/result.json"));
    assert_eq!(result["groups"], whole[0]["groups"]);
    let groups = result["groups"].as_array().unwrap();
    let weights = result["marginals"].as_array().unwrap();
    assert_eq!(groups.len(), weights.len());
    for (group, weights) in groups.iter().zip(weights) {
        let rows = group["rows"].as_array().unwrap();
        let weights = weights.as_array().unwrap();
        assert_eq!(rows.len(), weights.len());
        for (row, weights) in rows.iter().zip(weights) {
            let candidates = row["candidates"].as_array().unwrap();
            assert_eq!(candidates.len(), weights.as_array().unwrap().len());
        }
    }
}

/// The list says what the files of the runs say.
#[test]
fn a_study_is_listed_as_its_files_have_it() {
    let study = Path::new(ROOT).join("docs/studies/vim");
    let found = list(&study, &["."]);
    let (comparisons, runs): (Vec<_>, Vec<_>) =
        found.iter().partition(|e| e["kind"] == "comparison");
    let kept = fs::read_dir(&study).unwrap().map(|e| e.unwrap().path());
    let kept = kept.filter(|path| path.join("trials.json").is_file());
    assert_eq!(comparisons.len(), kept.count());
    for comparison in comparisons {
        let folder = study.join(comparison["name"].as_str().unwrap());
        let trials = json(&folder.join("trials.json"));
        let trials = trials.as_array().unwrap();
        let all = trials.len();
        assert_eq!(comparison["trials"], serde_json::json!([all, all]));
        assert_eq!(comparison["state"], "done");
        assert!(trials.iter().all(|t| t["space"] == comparison["space"]));
    }

    let mut folders: Vec<(String, String)> = fs::read_dir(&study)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|path| path.join("manifest.json").is_file())
        .map(|path| {
            let started = json(&path.join("manifest.json"))["started"].to_string();
            (
                started,
                path.file_name().unwrap().to_str().unwrap().to_owned(),
            )
        })
        .collect();
    folders.sort();
    let newest_first: Vec<&str> = folders
        .iter()
        .rev()
        .map(|(_, name)| name.as_str())
        .collect();
    let listed: Vec<&str> = runs.iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert_eq!(listed, newest_first);
    for run in &runs {
        let result = json(
            &study
                .join(run["name"].as_str().unwrap())
                .join("result.json"),
        );
        assert_eq!(run["state"], "done");
        // A surrogate knows the validation accuracy, and predicts it.
        let source = result["benchmark"]["source"].as_str().unwrap();
        let predicted = source.starts_with("surrogate");
        let metric = if predicted { "valid" } else { "test/cifar10" };
        assert_eq!(run["worth"]["metric"], metric);
        assert_eq!(run["worth"]["value"], result["metrics"][metric]);
        assert_eq!(run["worth"]["regret"], result["regret"][metric]);
        assert_eq!(run["worth"]["predicted"], predicted);
        assert!(run["age_seconds"].as_u64().is_some());
    }

    // Best first, and one that has no regret last.
    let sorted = list(&study, &[".", "--sort", "worth"]);
    let regret = |e: &Value| e["worth"]["regret"].as_f64().unwrap_or(f64::INFINITY);
    let regrets: Vec<f64> = sorted.iter().map(regret).collect();
    assert!(regrets.is_sorted() && regrets[0].is_finite(), "{regrets:?}");

    // A comparison's folder is that of its trials.
    let trials = list(&study, &["vim-ingredients", "--strategy", "vim"]);
    assert!(!trials.is_empty() && trials.iter().all(|e| e["strategy"] == "vim"));
}

#[test]
fn every_state_is_told_and_broken_runs_stop_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let runs = dir.join("runs");
    let search = |name: &str| copy("tests/fuzz/runs/search", &runs.join(name));
    let open = |name: &str| {
        let run = search(name);
        fs::remove_file(run.join("result.json")).unwrap();
        run
    };
    let add = |run: &Path, line: &str| {
        let events = run.join("events.jsonl");
        let text = fs::read_to_string(&events).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.pop();
        lines.push(line);
        fs::write(events, lines.join("\n") + "\n").unwrap();
    };
    search("done");
    copy("tests/fuzz/runs/retraining", &runs.join("trained"));
    let stopped = open("stopped");
    add(
        &stopped,
        r#"{"event":"progress","step":3,"epoch":1,"meters":{},"lr":0.1,"scalars":{},"done":0.75,"seconds":1.0}"#,
    );
    add(&open("interrupted"), r#"{"event":"interrupted","step":3}"#);
    let running = open("running");
    let me = serde_json::to_string(&Process::this()).unwrap();
    fs::write(running.join(".lock"), me).unwrap();
    let waiting = open("waiting");
    fs::remove_file(waiting.join("events.jsonl")).unwrap();
    fs::write(search("broken-settings").join("run.json"), "{\"strategy\"").unwrap();
    fs::write(search("broken-result").join("result.json"), "[]").unwrap();
    fs::remove_file(search("broken-without").join("run.json")).unwrap();
    // What is none.
    fs::create_dir_all(runs.join("pictures")).unwrap();
    fs::write(runs.join("notes.txt"), "").unwrap();

    let found = list(dir, &["--sort", "name"]);
    let states: Vec<(&str, &str)> = found
        .iter()
        .map(|e| (e["name"].as_str().unwrap(), e["state"].as_str().unwrap()))
        .collect();
    assert_eq!(
        states,
        [
            ("broken-result", "broken"),
            ("broken-settings", "broken"),
            ("broken-without", "broken"),
            ("done", "done"),
            ("interrupted", "interrupted"),
            ("running", "running"),
            ("stopped", "stopped"),
            ("trained", "done"),
            ("waiting", "waiting"),
        ]
    );
    assert_eq!(found[6]["done"], 0.75);
    let table = good(dir, &["runs", "--sort", "name"]);
    assert!(table.contains("stopped 75%"), "{table}");
    assert!(table.contains("test-top1 0.5000"), "{table}");
    assert!(
        table.contains("broken-without is broken: it has no run.json"),
        "{table}"
    );
    assert_eq!(
        names(&list(dir, &["--state", "interrupted"])),
        ["interrupted"]
    );
    assert_eq!(names(&list(dir, &["--space", "standalone"])), ["trained"]);
    assert!(good(dir, &["runs", "--space", "nowhere"]).starts_with("no runs like that in runs"));
}

#[test]
fn the_table_fits_and_says_what_is_predicted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let long = "vim-nasbench201-cifar10-s104-20261126-021948-and-more";
    let run = copy(
        "docs/studies/vim/confirmation-104",
        &dir.join("runs").join(long),
    );
    copy("docs/studies/vim/confirmation-105", &dir.join("runs/b"));
    let mut result = json(&run.join("result.json"));
    result["trust"] = serde_json::json!({"predicted": {"test/cifar10": [94.0, 94.5]}});
    fs::write(run.join("result.json"), result.to_string()).unwrap();
    let table = good(dir, &["runs"]);
    assert!(
        table.lines().all(|line| line.chars().count() <= 80),
        "{table}"
    );
    assert!(table.lines().any(|line| line == long), "{table}");
    assert!(table.contains("regret 0.0100 (predicted)"), "{table}");
    assert_eq!(table.matches("(predicted)").count(), 1, "{table}");
}

#[test]
fn what_is_no_folder_of_runs_is_refused_with_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    copy("tests/fuzz/runs/search", &dir.join("runs/a"));
    for (args, part) in [
        (["runs", "nowhere"], "No such file"),
        (["runs", "runs/a"], "this is one run"),
        (["table", "runs"], "this is no run folder"),
    ] {
        let out = nasfw(dir, &args);
        let text = flat(&out.stderr);
        assert_eq!(out.status.code(), Some(4), "{text}");
        assert!(text.contains(part) && text.contains("help:"), "{text}");
    }
}

/// What stands side by side is what the files say; settings are there exactly if they differ.
#[test]
fn runs_stand_side_by_side() {
    let study = Path::new(ROOT).join("docs/studies/vim");
    let runs = ["confirmation-104", "confirmation-105", "confirmation-106"];
    let settings = runs.map(|run| {
        let text = fs::read_to_string(study.join(run).join("config.toml")).unwrap();
        text.parse::<toml::Table>().unwrap()
    });
    let seeds: Vec<i64> = settings
        .iter()
        .map(|s| s["seed"].as_integer().unwrap())
        .collect();
    assert_eq!(seeds, [104, 105, 106]);

    let text = good(&study, &[&["table"][..], &runs].concat());
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    let row = |name: &str| {
        let mut rows = text
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>());
        rows.find(|cells| cells.first() == Some(&name))
    };
    assert_eq!(
        row("seed").unwrap(),
        ["seed", "104", "105", "106"],
        "{text}"
    );
    assert_eq!(row("state").unwrap()[1..], ["done"; 3], "{text}");
    let regrets: Vec<String> = runs
        .iter()
        .map(|run| {
            let result = json(&study.join(run).join("result.json"));
            format!("{:.4}", result["regret"]["test/cifar10"].as_f64().unwrap())
        })
        .collect();
    assert_eq!(row("regret.test/cifar10").unwrap()[1..], regrets, "{text}");
    assert!(
        row("strategy.name").is_none() && row("space.name").is_none(),
        "{text}"
    );

    let value: Value =
        serde_json::from_str(&good(&study, &[&["table", "--json"][..], &runs].concat())).unwrap();
    assert_eq!(value["differ"], serde_json::json!(["seed"]));
    assert_eq!(value["runs"][1]["settings"]["seed"], 105);

    // The CSV file is that of `export-runs`.
    let dir = tempfile::tempdir().unwrap();
    let to = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    good(
        &study,
        &[&["table", "--csv", &to("a.csv")][..], &runs].concat(),
    );
    good(
        &study,
        &[&["export-runs", "--csv", &to("b")][..], &runs].concat(),
    );
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("a.csv"), read("b/runs.csv"));
    let mut csv = csv::Reader::from_path(dir.path().join("a.csv")).unwrap();
    assert_eq!(csv.records().map(Result::unwrap).count(), 3);
}
