//! Limits from the command line: short and long form, what a run keeps, and what is refused before the first step.

use std::fs;

use serde_json::Value;

use crate::program::{TOY_SPACE, flat, good, killed, nasfw, result, toy_folder};

const TINY: [&str; 12] = [
    "--space",
    "toy.toml",
    "--dataset",
    "synthetic",
    "--set",
    "dataset.images=64",
    "--epochs",
    "2",
    "--threads",
    "1",
    "--seed",
    "3",
];

/// The settings that `config show` resolves, as JSON.
fn settings(dir: &std::path::Path, args: &[&str]) -> Value {
    let text = good(dir, &[&["config", "show", "--toml"], args].concat());
    let table: toml::Table = toml::from_str(&text).unwrap();
    serde_json::to_value(table).unwrap()
}

#[test]
fn the_short_form_is_the_long_one() {
    let dir = toy_folder();
    let dir = dir.path();
    let long = ["-s", "constrained", "--set", "strategy.base.name=gdas"];
    let long = [
        &long[..],
        &["--set", "strategy.cost.macs={ limit = \"1M\" }"],
    ]
    .concat();
    let long = [&long[..], &["--set", "strategy.base.arch.lr=0.01"]].concat();
    let short = [
        "-s",
        "gdas",
        "--limit",
        "macs=1M",
        "--set",
        "strategy.arch.lr=0.01",
    ];
    assert_eq!(settings(dir, &short), settings(dir, &long));
    // A limit of a wrapper that is there already is one more of its own.
    let both = [
        "-s",
        "constrained",
        "--limit",
        "macs=1M",
        "--set",
        "strategy.base.name=gdas",
    ];
    let both = [&both[..], &["--set", "strategy.base.arch.lr=0.01"]].concat();
    assert_eq!(settings(dir, &both), settings(dir, &long));
    // What else the wrapper has, beside limits or in its own section.
    let sizes = [
        "--set",
        "limits.network.channels=8",
        "--set",
        "limits.penalty=log",
    ];
    let found = settings(dir, &[&short[..], &sizes].concat());
    let sizes = [
        "--set",
        "strategy.network.channels=8",
        "--set",
        "strategy.penalty=log",
    ];
    assert_eq!(found, settings(dir, &[&long[..], &sizes].concat()));
    assert_eq!(found["strategy"]["network"]["channels"], 8);
    // In a file, where the strategy is the usual one, and its preset.
    fs::write(
        dir.join("my.toml"),
        "[limits]\nmacs = \"2M\"\n[strategy]\npreset = \"p\"\n",
    )
    .unwrap();
    let found = settings(dir, &["--config", "my.toml"]);
    let strategy = &found["strategy"];
    assert_eq!(strategy["name"], "constrained");
    assert_eq!(strategy["cost"]["macs"], "2M");
    assert_eq!(strategy["base"]["name"], "vim");
    assert_eq!(strategy["base"]["form"], "point");
    // What is not said of it is as without limits.
    let alone = settings(dir, &["--set", "strategy.preset=p"]);
    assert_eq!(alone["strategy"], strategy["base"]);
    assert_eq!(alone["trainer"], found["trainer"]);
}

/// Strategies of every kind, under the tightest limit that can be met, with a margin of a hundredth.
#[test]
fn what_is_found_meets_the_limit_whatever_the_strategy() {
    let dir = toy_folder();
    let dir = dir.path();
    for (cost, nothing) in [("params", "params=1"), ("memory", "memory=1B")] {
        let out = nasfw(dir, &[&["run", "--limit", nothing], &TINY[..]].concat());
        let text = flat(&out.stderr);
        let (_, cheapest) = text.split_once(&format!("has {cost} ")).unwrap();
        let cheapest: Vec<&str> = cheapest.split_whitespace().collect();
        // "2.05K", or "16.38 KB".
        let (number, unit) = match cost {
            "params" => cheapest[0].split_at(cheapest[0].len() - 1),
            _ => (cheapest[0], cheapest[1]),
        };
        let most = number.parse::<f64>().unwrap() * 1.01;
        let limit = format!("{cost}={most}{unit}");
        let bound = most * if unit.starts_with('K') { 1e3 } else { 1e6 };
        let mut dearer = 0;
        for strategy in ["darts", "gdas", "vim", "rsps", "random", "snas"] {
            let found = |name: &str, limit: &str| {
                let own = ["run", "--name", name, "--limit", limit, "-s", strategy];
                good(dir, &[&own[..], &TINY].concat());
                let metrics = &result(dir, name)["metrics"];
                metrics[&format!("cost/{cost}")].as_f64().unwrap()
            };
            let cost_under = found(&format!("{strategy}-{cost}"), &limit);
            assert!(
                cost_under <= bound,
                "{strategy}: {cost} {cost_under} of {bound}"
            );
            let loose = limit.replace(&format!("={most}"), "=1000000");
            dearer += usize::from(found(&format!("{strategy}-{cost}-loose"), &loose) > bound);
        }
        assert!(dearer > 0, "no limit on {cost} changed anything");
    }
}

#[test]
fn mistakes_in_limits_are_refused_before_the_first_step() {
    let dir = toy_folder();
    let dir = dir.path();
    for (args, says) in [
        (&["--limit", "macs"][..], "not of the form NAME=VALUE"),
        (&["--limit", "mac=1M"], "did you mean `macs`?"),
        (
            &["--limit", "macs=1ms"],
            "it must be a number, or one with K, M or G",
        ),
        (&["--limit", "memory=3M"], "4MB"),
        (&["--limit", "macs=1"], "the cheapest has macs"),
        (
            &["-s", "constrained", "--set", "strategy.strength=2"],
            "it would change nothing without a limit",
        ),
        (
            &[
                "--set",
                "strategy.cost.macs={ limit = \"1M\", size = 3 }",
                "-s",
                "constrained",
            ],
            "no such option",
        ),
        (&["--set", "limits=3"], "cost"),
    ] {
        let out = nasfw(dir, &[&["run"], args, &TINY].concat());
        let text = flat(&out.stderr);
        assert!(
            !out.status.success() && text.contains(says),
            "{args:?}: {text}"
        );
        assert!(!text.contains("panicked"), "{text}");
    }
    let out = nasfw(
        dir,
        &[
            "run",
            "--space",
            "toy-planted",
            "--dataset",
            "toy-halves",
            "--limit",
            "macs=1M",
        ],
    );
    assert!(
        flat(&out.stderr).contains("standalone network"),
        "{}",
        flat(&out.stderr)
    );
    let runs = fs::read_dir(dir.join("runs"));
    let finished = runs.into_iter().flatten().filter(|run| {
        let run = run.as_ref().unwrap().path();
        run.join("result.json").exists()
    });
    assert_eq!(finished.count(), 0);
}

/// People read costs with the unit in which they typed the limit, programs the plain number.
#[test]
fn costs_are_shown_with_their_unit_to_people_and_plain_to_programs() {
    let dir = toy_folder();
    let dir = dir.path();
    let own = ["run", "--name", "it", "-s", "random"];
    let limits = ["--limit", "macs=1G", "--limit", "memory=1GB"];
    let said = good(dir, &[&own[..], &limits, &TINY].concat());
    let metrics = &result(dir, "it")["metrics"];
    let report = dir.join("report.html");
    good(dir, &["report", "runs/it", "-o", report.to_str().unwrap()]);
    let report = fs::read_to_string(report).unwrap();
    let table = good(dir, &["table", "runs/it"]);
    let watch = good(dir, &["watch", "runs/it", "--once"]);
    let json: Value = serde_json::from_str(&good(dir, &["table", "runs/it", "--json"])).unwrap();
    good(dir, &["table", "runs/it", "--csv", "it.csv"]);
    let csv = fs::read_to_string(dir.join("it.csv")).unwrap();
    for (metric, unit) in [("cost/macs", ""), ("cost/memory", "B")] {
        let plain = metrics[metric].as_f64().unwrap();
        // "28.49M", or "16.38 KB".
        let in_words = |text: &str| {
            let text = text.trim_start();
            let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
            let (digits, suffix) = text.split_at(digits.unwrap_or(text.len()));
            let mut letters = suffix.trim_start().chars();
            let factor = match letters.next() {
                Some('K') => 1e3,
                Some('M') => 1e6,
                _ => return false,
            };
            let shown: f64 = digits.parse().unwrap_or(f64::NAN);
            (shown * factor / plain - 1.0).abs() < 1e-3 && letters.as_str().starts_with(unit)
        };
        for (place, text) in [("run", &said), ("table", &table), ("watch", &watch)] {
            let mut after = text.split(metric).skip(1);
            let shown = after.any(|text| in_words(text.trim_start_matches(':')));
            assert!(shown, "{place}, {metric}: {text}");
        }
        let mut cells = report.split("</td>");
        let shown = cells.any(|cell| {
            let value = format!("data-value=\"{plain}\">");
            cell.split_once(&value)
                .is_some_and(|(_, text)| in_words(text))
        });
        assert!(shown, "{metric}");
        let worth = &json["runs"][0]["worth"][format!("metric.{metric}")];
        assert_eq!(worth.as_f64(), Some(plain));
        assert!(
            csv.contains(&format!(",{plain},")) || csv.contains(&format!(",{plain}\n")),
            "{csv}"
        );
    }
}

/// A node with so many ways to be decided that they can't be held in memory; with fewer edges it is let pass.
#[test]
fn nodes_with_too_many_ways_are_refused_before_the_first_step() {
    let dir = toy_folder();
    let dir = dir.path();
    let said = |keep: usize| {
        let large = TOY_SPACE
            .replace("nodes = 2", "nodes = 12")
            .replace("keep = 0", &format!("keep = {keep}"));
        fs::write(dir.join("large.toml"), large).unwrap();
        let own = ["run", "--space", "large.toml", "--limit", "params=1"];
        let out = nasfw(dir, &[&own[..], &TINY[2..]].concat());
        assert_eq!(out.status.code(), Some(2), "{}", flat(&out.stderr));
        flat(&out.stderr)
    };
    let text = said(6);
    // 12 over 6 sets of edges, 3 operations for each of the 6.
    assert!(
        text.contains("node 12 of `cell` keeps 6 of 12 edges") && text.contains("6.7e5 ways"),
        "{text}"
    );
    assert!(text.contains("let the space keep fewer"), "{text}");
    let text = said(3);
    assert!(text.contains("the cheapest has params"), "{text}");
}

/// Killed and resumed, a search under a learned penalty is the same.
#[test]
fn a_multiplier_is_part_of_what_is_resumed() {
    let dir = toy_folder();
    let dir = dir.path();
    let penalty = [
        "--set",
        "strategy.penalty=lagrange",
        "--set",
        "strategy.rate=1.0",
    ];
    let own = [
        "-s",
        "constrained",
        "--set",
        "strategy.base.name=darts",
        "--set",
        "strategy.cost.params=80K",
    ];
    let args = |name: &'static str, epochs: &'static str| {
        let search = [
            "run",
            "--name",
            name,
            "--space",
            "toy.toml",
            "--dataset",
            "synthetic",
        ];
        let size = [
            "--set",
            "dataset.images=64",
            "--threads",
            "1",
            "--epochs",
            epochs,
        ];
        [&search[..], &size, &own, &penalty].concat()
    };
    good(dir, &args("whole", "4"));
    let often = [
        "--set",
        "trainer.checkpoint_every=1",
        "--set",
        "trainer.log_every=1",
    ];
    let part = [&args("part", "4")[..], &often].concat();
    killed(dir, &part, &dir.join("runs/part/events.jsonl"), 3);
    good(dir, &["resume", "runs/part"]);
    for key in ["marginals", "genotype", "metrics"] {
        assert_eq!(result(dir, "part")[key], result(dir, "whole")[key], "{key}");
    }
}
