//! From an architecture to a trained network: `retrain`, `resume`, `eval`, `export`.

use std::fs;

use nasfw::framework::config::{Layer, Resolved, RunConfig, resolve};
use nasfw::framework::registry::{Kind, Registry};
use serde_json::Value;

use crate::program::{good, nasfw};
use crate::resume::killed_equals_whole;

const CELL: &str =
    "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|";
/// A short training on few, tiny images.
const TINY: [&str; 8] = [
    "--dataset",
    "synthetic",
    "--preset",
    "quick",
    "--set",
    "dataset.images=96",
    "--set",
    "trainer.batch_size=16",
];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_network_learns_and_is_measured_and_exported_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut args = vec!["retrain", CELL, "--name", "run", "--epochs", "6"];
    args.extend(TINY);
    args.extend([
        "--set",
        "dataset.noise=0.3",
        "--channels",
        "4",
        "--cells",
        "1",
    ]);
    args.extend(["--device", "cpu", "--out=."]);
    let said = good(dir, &args);
    assert!(
        said.contains("nasfw eval run") || said.contains("nasfw eval ./run"),
        "{said}"
    );

    let result = json(&fs::read_to_string(dir.join("run/result.json")).unwrap());
    let metrics = &result["metrics"];
    let top1 = metrics["test-top1"].as_f64().unwrap();
    assert!(top1 > 0.5, "guessing gives 0.25: {metrics}");
    assert!(metrics["best-test-top1"].as_f64().unwrap() >= top1);
    assert_eq!(result["genotype"]["space"], "nasbench201");

    // The same figures from the files alone, to the last bit; of the checkpoint before, others.
    let found = json(&good(dir, &["eval", "run", "--json"]));
    assert_eq!(found["test"]["accuracy"].as_f64(), Some(top1));
    assert_eq!(found["test"]["loss"], metrics["test-loss"]);
    assert_eq!(found["epoch"], 6);
    let mut checkpoints: Vec<_> = fs::read_dir(dir.join("run/checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    checkpoints.sort();
    let older = checkpoints[checkpoints.len() - 2].to_str().unwrap();
    let older = json(&good(dir, &["eval", older, "--json"]));
    assert_eq!(older["epoch"], 5);
    assert_ne!(older["test"]["loss"], found["test"]["loss"]);
    // What is kept is what is said, for the report; of a checkpoint it would stand for the run.
    let kept = dir.join("run/evaluation.json");
    assert!(!kept.exists());
    let said = json(&good(dir, &["eval", "run", "--keep", "--json"]));
    assert_eq!(json(&fs::read_to_string(&kept).unwrap()), said);
    assert_eq!(said, found);
    let newest = checkpoints.last().unwrap().to_str().unwrap();
    assert_eq!(
        nasfw(dir, &["eval", newest, "--keep"]).status.code(),
        Some(2)
    );
    good(dir, &["report", "run"]);
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(page.contains("On the test images") && page.contains("What is taken for what"));
    let text = good(dir, &["eval", "run"]);
    assert!(
        text.contains("top-1") && text.contains("multiply-adds"),
        "{text}"
    );
    // Stem, cell and blocks by hand, with C = 4: conv 3→4 and BN; cells of one 3×3 and one 1×1 with BN; two blocks;
    // the last BN; 16 × 4 + 4.
    let cell = |c: i64| 9 * c * c + 2 * c + c * c + 2 * c;
    let block = |a: i64, b: i64| 9 * a * b + 2 * b + 9 * b * b + 2 * b + a * b;
    let expected =
        27 * 4 + 8 + cell(4) + block(4, 8) + cell(8) + block(8, 16) + cell(16) + 32 + 16 * 4 + 4;
    assert_eq!(found["cost"]["params"], expected);

    good(
        dir,
        &[
            "export",
            "run",
            "--onnx",
            "n.onnx",
            "--safetensors",
            "n.safetensors",
        ],
    );
    let bytes = fs::read(dir.join("n.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(
        tensors.names().iter().any(|n| n.contains("stem")),
        "{:?}",
        tensors.names()
    );
    assert!(fs::metadata(dir.join("n.onnx")).unwrap().len() > 4 * expected.unsigned_abs());

    // A run's own architecture and data, for another network; and a finished run says so.
    let again = [
        "--epochs",
        "1",
        "--cells",
        "1",
        "--channels",
        "2",
        "--preset",
        "quick",
        "--out=.",
        "--name",
        "again",
    ];
    good(dir, &[&["retrain", "run"], &again[..]].concat());
    let config = fs::read_to_string(dir.join("again/config.toml")).unwrap();
    assert!(
        config.contains("name = \"synthetic\"") && config.contains("images = 96"),
        "{config}"
    );
    assert!(good(dir, &["resume", "run"]).contains("this run is finished"));
    let loaded = |run: &str| {
        json(&fs::read_to_string(dir.join(run).join("result.json")).unwrap())["genotype"].clone()
    };
    assert_eq!(loaded("again"), loaded("run"));
}

#[test]
fn retraining_survives_kill_9_bit_by_bit() {
    let mut args = vec!["retrain", "DARTS_V2"];
    args.extend(TINY);
    // Everything that draws or remembers: drop path, momentum, running statistics, the best epoch so far.
    args.extend(["--channels", "2", "--cells", "3", "--epochs", "2"]);
    args.extend([
        "--set",
        "strategy.drop_path=0.3",
        "--set",
        "trainer.augment.cutout=4",
    ]);
    killed_equals_whole(&args, 5, 3);
}

#[test]
fn what_cannot_be_trained_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("unfinished")).unwrap();
    fs::write(dir.join("unfinished/run.json"), "{}").unwrap();
    let toy = r#"{"space": "toy-conv", "cells": []}"#;
    let nowhere = r#"{"space": "nowhere", "cells": []}"#;
    let other = r#"{"space": "nasbench201", "cells": [{"name": "x", "inputs": [], "nodes": [], "output": []}]}"#;
    let cases: [(&[&str], i32, &str); 11] = [
        (&["retrain", "DARTS_V9"], 2, "did you mean `DARTS_V2`?"),
        (&["retrain", "unfinished"], 4, "there is no result"),
        (&["retrain", toy], 2, "no standalone network"),
        (&["retrain", nowhere], 2, "no space is called `nowhere`"),
        (&["retrain", other], 2, "it has no cell `cell`"),
        (
            &["retrain", CELL, "--preset", "fast"],
            2,
            "has no preset `fast`",
        ),
        (
            &["retrain", CELL, "--cells", "5000"],
            2,
            "5000 is out of range",
        ),
        (
            &[
                "retrain",
                CELL,
                "--dataset",
                "cifar10",
                "--data-dir",
                "none",
            ],
            3,
            "none",
        ),
        (
            &["run", "--strategy", "train", "--space", "toy-conv"],
            2,
            "nasfw retrain",
        ),
        (
            &["retrain", CELL, "--set", "space.auxiliary=0.4"],
            2,
            "--set space.auxiliary=0",
        ),
        (&["eval", "unfinished"], 4, "it can't be understood"),
    ];
    for (args, code, says) in cases {
        let out = nasfw(dir, args);
        let text = String::from_utf8_lossy(&out.stderr);
        let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
        assert!(flat.contains(says), "{args:?}: {text}");
    }
    assert!(!dir.join("runs").exists() || fs::read_dir(dir.join("runs")).unwrap().next().is_none());

    // What may make the training a waste is said before it; here it has no data to begin with.
    let doubts = |what: &str| {
        let out = nasfw(
            dir,
            &[
                "retrain",
                what,
                "--dataset",
                "cifar10",
                "--data-dir",
                "none",
            ],
        );
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(3), "{text}");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(!doubts(CELL).contains("WARN"));
    let dead = "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|";
    let said = doubts(dead);
    assert!(
        said.contains("WARN nodes 1, 2 have no effect on the output (2 of 3)"),
        "{said}"
    );

    let mut search = vec!["run", "--strategy", "darts", "--space", "nasbench201"];
    search.extend(["--epochs", "1", "--set", "space.preset=small"]);
    search.extend(["--set", "dataset.name=synthetic"]);
    search.extend([
        "--set",
        "dataset.images=96",
        "--set",
        "trainer.batch_size=16",
    ]);
    search.extend(["--out=.", "--name", "toss", "--device", "cpu"]);
    good(dir, &search);
    // By the run, and by a result that was copied out of it.
    fs::copy(dir.join("toss/result.json"), dir.join("toss.json")).unwrap();
    for what in ["toss", "toss.json"] {
        let said = doubts(what);
        assert!(said.contains("WARN undecided:"), "{what}: {said}");
    }

    let mut search = vec!["run", "--strategy", "darts", "--space", "toy-conv"];
    search.extend(["--epochs", "1"]);
    search.extend(["--out=.", "--name", "search", "--device", "cpu"]);
    good(dir, &search);
    let out = nasfw(dir, &["export", "search", "--onnx", "x"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("nasfw retrain"));
    // What a supernet's weights are worth for its architecture can be measured; it has no size of its own.
    assert_eq!(
        json(&good(dir, &["eval", "search", "--json"]))["cost"],
        Value::Null
    );
}

fn resolved(preset: &str, dataset: &str) -> (Registry, Resolved) {
    let registry = Registry::load().unwrap();
    let set = |key: &str, value: &str| (key.to_owned(), format!("\"{value}\""), String::new());
    let layer = Layer::CommandLine(vec![
        set("strategy.name", "train"),
        set("space.name", "standalone"),
        set("dataset.name", dataset),
        set("strategy.preset", preset),
        set("space.preset", preset),
    ]);
    let resolved = resolve(&registry, &[layer]).unwrap();
    (registry, resolved)
}

#[test]
fn presets_are_valid_and_say_what_was_published() {
    let registry = Registry::load().unwrap();
    let presets = |kind, name| {
        registry
            .get(kind, name)
            .unwrap()
            .presets
            .iter()
            .map(|p| p.0)
    };
    assert!(presets(Kind::Strategy, "train").eq(presets(Kind::Space, "standalone")));
    let names: Vec<&str> = presets(Kind::Strategy, "train").collect();
    for preset in &names {
        let (registry, resolved) = resolved(preset, "cifar10");
        RunConfig::new(&registry, &resolved).unwrap_or_else(|e| panic!("{preset}: {e}"));
    }
    // spec of the papers: epochs, batch, rate at the start, weight decay, drop path, auxiliary weight.
    for (preset, dataset, published) in [
        (
            "darts-cifar",
            "cifar10",
            [600.0, 96.0, 0.025, 3e-4, 0.2, 0.4],
        ),
        (
            "pdarts-cifar",
            "cifar10",
            [600.0, 128.0, 0.025, 3e-4, 0.3, 0.4],
        ),
        (
            "drnas-cifar",
            "cifar100",
            [600.0, 64.0, 0.025, 3e-4, 0.3, 0.4],
        ),
        (
            "darts-imagenet",
            "imagenet",
            [250.0, 128.0, 0.1, 3e-5, 0.0, 0.4],
        ),
        (
            "pc-darts-imagenet",
            "imagenet",
            [250.0, 1024.0, 0.5, 3e-5, 0.0, 0.4],
        ),
        (
            "nasbench201",
            "cifar10",
            [200.0, 256.0, 0.1, 5e-4, 0.0, 0.0],
        ),
        (
            "nasbench101",
            "cifar10",
            [108.0, 256.0, 0.2, 1e-4, 0.0, 0.0],
        ),
    ] {
        let (_, resolved) = resolved(preset, dataset);
        let number = |path: &str| {
            resolved
                .value
                .pointer(path)
                .and_then(Value::as_f64)
                .unwrap()
        };
        let found = [
            "/trainer/epochs",
            "/trainer/batch_size",
            "/trainer/weights/lr",
            "/trainer/weights/weight_decay",
            "/strategy/drop_path",
            "/space/auxiliary",
        ]
        .map(number);
        assert_eq!(found, published, "{preset}");
    }
    let (_, large) = resolved("darts-imagenet", "imagenet");
    assert_eq!(large.value["space"]["of"], "darts-imagenet");
    assert_eq!(large.value["space"]["label_smoothing"], 0.1);
    let end = large.value["trainer"]["weights"]["lr_min"]
        .as_f64()
        .unwrap();
    assert!((end - 0.1 * 0.97f64.powi(250)).abs() < 1e-18);
}
