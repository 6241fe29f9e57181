//! Surrogates through the binary: what is fitted, what it says of itself, and how a run marks what is predicted.

use std::fs;
use std::path::Path;

use nasfw::framework::events::Event;
use nasfw::framework::run::{EVENTS, RESULT, read_events};
use nasfw::prelude::*;
use nasfw::spaces::toy::planted::{Landscape, Planted};
use serde_json::Value;

use crate::program::{flat, nasfw};

/// Standard output and error of a command that must end with `code`.
fn said(dir: &Path, code: i32, args: &[&str]) -> (String, String) {
    let out = nasfw(dir, args);
    let stdout = String::from_utf8_lossy(&out.stdout).into_owned();
    let stderr = flat(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {stdout}{stderr}");
    (stdout, stderr)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A CSV file of the toy landscape's architectures but for one.
fn csv(path: &Path, without: Option<&Genotype>) {
    let config = Planted {
        rows: 4,
        candidates: 4,
        coupling: 0.3,
        landscape: 0,
    };
    let (space, landscape) = (config.build().unwrap(), Landscape::new(&config));
    let mut text = String::from("genotype,value\n");
    for choice in space.spec().enumerate() {
        let genotype = space.genotype(&choice);
        if Some(&genotype) != without {
            let quoted = serde_json::to_string(&genotype)
                .unwrap()
                .replace('"', "\"\"");
            text += &format!("\"{quoted}\",{}\n", landscape.value(&choice));
        }
    }
    fs::write(path, text).unwrap();
}

fn search(dir: &Path, name: &str, more: &[&str]) -> (String, Value) {
    let toy = "run --strategy darts --space toy-planted --epochs 2 --device cpu --threads 1 --out . --name";
    let mut args: Vec<&str> = toy.split_whitespace().chain([name]).collect();
    args.extend(more);
    let (text, _) = said(dir, 0, &args);
    (text, json(&dir.join(name).join(RESULT)))
}

fn of_surrogate(file: &str) -> [&str; 4] {
    ["--set", "benchmark.name=surrogate", "--set", file]
}

#[test]
fn what_a_surrogate_predicts_is_marked_wherever_it_is_shown() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let (_, exact) = search(dir, "exact", &[]);
    let found: Genotype = serde_json::from_value(exact["genotype"].clone()).unwrap();
    csv(&dir.join("some.csv"), Some(&found));

    let (text, _) = said(
        dir,
        0,
        &[
            "bench",
            "fit",
            "some.csv",
            "-o",
            "some.surrogate",
            "--seed",
            "1",
        ],
    );
    assert!(
        text.contains("`value` of 255 architectures is known") && text.contains("Kendall's τ 0."),
        "{text}"
    );
    assert!(
        text.contains("--space toy-planted --set benchmark.name=surrogate"),
        "{text}"
    );
    for verb in ["info", "verify"] {
        let (text, _) = said(dir, 0, &["bench", verb, "some.surrogate"]);
        assert!(
            text.contains("Kendall's τ 0.") && text.contains("inside 95 %"),
            "{verb}: {text}"
        );
    }
    let (text, _) = said(dir, 0, &["bench", "info", "some.surrogate", "--json"]);
    let info: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(info["rows"], 255);
    assert!(info["held_out"]["tau"].as_f64().unwrap() > 0.8, "{text}");
    let (text, _) = said(dir, 0, &["bench", "query", "some.surrogate", "exact"]);
    assert!(
        text.contains("value (predicted): ") && text.contains("a probability of 95 %"),
        "{text}"
    );

    let (text, result) = search(dir, "run", &of_surrogate("benchmark.file=some.surrogate"));
    assert_eq!(result["genotype"], exact["genotype"]);
    assert!(
        text.contains("value (predicted): ") && text.contains("nobody measured it"),
        "{text}"
    );
    assert!(text.contains("none is predicted to be better"), "{text}");
    assert!(result["known"].is_null(), "{result}");
    let ends = result["trust"]["predicted"]["value"].as_array().unwrap();
    let value = result["metrics"]["value"].as_f64().unwrap();
    let [low, high] = [0, 1].map(|i| ends[i].as_f64().unwrap());
    assert!(low <= value && value <= high, "{ends:?}");
    // It is the best of the landscape; predicted is the best that the table knows, and nothing beyond it.
    let best = info["optimum"]["value"].as_f64().unwrap();
    assert_eq!(exact["metrics"]["value"], 1.0);
    assert!(value > 0.7 && value <= best && best < 1.0, "{value} {best}");
    assert!(result["regret"]["value"].as_f64().unwrap() >= 0.0);
    let last = result["curve"].as_array().unwrap().last().unwrap();
    assert!(last["predicted"]["value"].is_array(), "{last}");
    assert_eq!(last["known"], false);
    let names: Vec<String> = read_events(&dir.join("run").join(EVENTS))
        .unwrap()
        .iter()
        .filter_map(Event::scalars)
        .flat_map(|(_, numbers)| numbers.into_iter().map(|n| n.0))
        .collect();
    for name in ["metrics/value/predicted", "regret/value/predicted"] {
        assert!(names.iter().any(|n| n == name), "{names:?}");
    }
    said(dir, 0, &["report", "run", "-o", "run.html"]);
    let html = fs::read_to_string(dir.join("run.html")).unwrap();
    assert!(html.contains(" (predicted)</td>") && html.contains("nobody measured it"));
    said(dir, 0, &["export-runs", "run", "--csv", "tables"]);
    let table = fs::read_to_string(dir.join("tables/runs.csv")).unwrap();
    assert!(table.contains("metric.value (predicted)"), "{table}");
    let ranking = ["rank", "run", "--architectures", "200", "--batches", "1"];
    let (text, _) = said(dir, 0, &ranking);
    assert!(
        text.contains("predicted by a model, nobody measured them"),
        "{text}"
    );
    let plan = r#"
name = "guessed"
seeds = 1
strategies = ["darts"]
spaces = ["toy-planted"]
budgets = [{ unit = "steps", amount = STEPS }]
set = { device = "cpu", threads = 1, benchmark = { name = "surrogate", file = "SOME" } }
"#;
    let file = dir.join("some.surrogate");
    fs::write(
        dir.join("plan.toml"),
        plan.replace("SOME", file.to_str().unwrap())
            .replace("STEPS", &exact["steps"].to_string()),
    )
    .unwrap();
    let (text, _) = said(dir, 0, &["compare", "plan.toml"]);
    assert!(
        text.contains("predicted by a model, nobody measured them"),
        "{text}"
    );

    for kind in ["regret", "curves"] {
        let (figure, _) = said(dir, 0, &["figure", "runs/guessed", kind]);
        assert!(figure.contains("(predicted)"), "{kind}");
    }

    // With the architecture in the table, nothing of it is predicted.
    csv(&dir.join("all.csv"), None);
    said(dir, 0, &["bench", "fit", "all.csv", "-o", "all.surrogate"]);
    let (text, result) = search(dir, "known", &of_surrogate("benchmark.file=all.surrogate"));
    assert_eq!(result["metrics"]["value"], exact["metrics"]["value"]);
    assert!(
        result["trust"]["predicted"].is_null() && !text.contains("(predicted)"),
        "{text}"
    );
}

#[test]
fn what_can_not_be_done_is_refused_with_what_to_type() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let fit = |code: i32, text: &str, expected: &[&str]| {
        fs::write(dir.join("table.csv"), text).unwrap();
        let (_, why) = said(dir, code, &["bench", "fit", "table.csv", "-o", "out"]);
        assert!(expected.iter().all(|e| why.contains(e)), "{why}");
        assert!(!dir.join("out").exists());
    };
    fit(
        3,
        "ops,acc\n012345,7\n",
        &[
            "columns are missing: genotype",
            "nasfw bench import NAME FILE",
        ],
    );
    let cell = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|";
    fit(
        3,
        &format!("genotype,acc\n{cell},NaN\n"),
        &["line 2, column `acc`: `NaN` is no number"],
    );
    fit(
        2,
        &format!("genotype,acc\n{cell},7\n"),
        &["1 architectures are too few", "add rows"],
    );
    let (_, why) = said(dir, 3, &["bench", "fit", "nasbench201", "-o", "out"]);
    assert!(why.contains("nasfw bench import nasbench201 FILE"), "{why}");
    let run = |file: &str, code: i32| {
        let file = format!("benchmark.file={file}");
        let args = [
            "run",
            "--space",
            "toy-planted",
            "--strategy",
            "darts",
            "--set",
            "benchmark.name=surrogate",
            "--set",
        ];
        said(dir, code, &[&args[..], &[file.as_str()]].concat()).1
    };
    assert!(run("", 2).contains("nasfw bench fit TABLE -o FILE"));
    assert!(run("nowhere", 3).contains("cannot be read"));
    assert!(run("table.csv", 3).contains("this is no surrogate of nasfw"));
}
