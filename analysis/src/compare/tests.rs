//! Figures of made-up trials, and how often the rule that decides is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use nasfw_framework::trainer::Outcome;
use proptest::prelude::*;

use super::metric::Metrics;
use super::*;
use crate::stats::StepFunction;

const LABELS: [&str; 4] = ["new", "old", RANDOM, RANDOM_ARCHITECTURES];

fn labels() -> (Vec<String>, Vec<String>) {
    let all = LABELS.map(str::to_owned).to_vec();
    (all.clone(), all[2..].to_vec())
}

fn trial(strategy: &str, seed: u64, metric: Option<f64>) -> Measured {
    Measured {
        result: TrialResult {
            strategy: strategy.into(),
            space: "space".into(),
            dataset: None,
            budget: budget(),
            seed,
            run: "run".into(),
            state: State::Done,
            metric,
            regret: metric.map(|m| 100.0 - m),
            error: None,
        },
        curve: metric.and_then(|m| StepFunction::new(vec![(0.0, 50.0), (5.0, 100.0 - m)])),
        tau: None,
    }
}

fn budget() -> Budget {
    Budget {
        unit: Unit::Steps,
        amount: 10,
    }
}

fn setting() -> Setting {
    Setting {
        metric: Some("test".into()),
        ..Setting::empty("space", None, budget())
    }
}

/// `new` is ahead by 10 in every seed, the others differ by seed only a little and to no one's favour.
fn trials(seeds: u64) -> Vec<Measured> {
    let value = |label: &str, seed: u64| {
        let ahead = if label == "new" { 10.0 } else { 0.0 };
        let noise = (seed * 7 + label.len() as u64 * 5) % 11;
        60.0 + ahead + seed as f64 * 0.3 + noise as f64 * 0.1
    };
    let all = (0..seeds).flat_map(|s| LABELS.map(|l| trial(l, s, Some(value(l, s)))));
    all.collect()
}

fn compared(trials: &[Measured]) -> Setting {
    let (all, controls) = labels();
    let labels = Labels {
        all: &all,
        controls: &controls,
    };
    figures(setting(), trials, labels, 0.05)
}

#[test]
fn a_clear_difference_is_said_and_none_is_not() {
    let s = compared(&trials(10));
    assert!(
        !s.partial && s.seeds.len() == 10 && s.pairs.len() == 6,
        "{s:?}"
    );
    assert_eq!(
        s.strategies[0].sentence,
        "better than random (p = 0.012) and random-architectures (p = 0.012)"
    );
    assert!(
        s.strategies[1]
            .sentence
            .starts_with("not distinguishable from random (p = "),
        "{s:?}"
    );
    assert_eq!((s.pairs[0].rank_biserial, s.pairs[0].n), (1.0, 10));
    assert_eq!(s.ranks.as_ref().unwrap().average[0], ("new".into(), 1.0));
    let anytime = s.strategies[0].anytime.as_ref().unwrap();
    assert_eq!(
        (anytime.mean[0], anytime.mean.len(), anytime.high.len()),
        (50.0, 101, 101)
    );
    // Half of the budget at 50, half at the end.
    let regret = s.strategies[0].regret.as_ref().unwrap();
    assert!((anytime.area.mean - (50.0 + regret.mean) / 2.0).abs() < 1e-9);
    assert!(s.notes.is_empty(), "{:?}", s.notes);
}

#[test]
fn too_few_seeds_are_said_to_be_too_few() {
    let s = compared(&trials(7));
    let note = "7 seeds can't show any difference at level 0.05: the smallest possible p of a pair is 0.016, after \
                Holm's correction for 6 tests 0.094; it takes at least 8 seeds";
    assert_eq!(s.notes[0], note);
    assert!(s.strategies[0].sentence.starts_with("not distinguishable"));
    assert!(
        compared(&trials(8)).strategies[0]
            .sentence
            .starts_with("better than random")
    );
    let one = compared(&trials(1));
    assert!(one.pairs.is_empty() && one.ranks.is_none());
    assert_eq!(one.strategies[0].sentence, "no test yet");
    assert_eq!(
        (
            one.strategies[0].metric.sd,
            one.strategies[0].metric.interval
        ),
        (None, None)
    );
}

/// Only seeds that all have finished count, whoever lacks one, and whichever order trials come in.
#[test]
fn what_is_not_finished_by_all_is_left_out_for_all() {
    let mut all = trials(12);
    let whole = compared(&all[..40]);
    all.retain(|t| t.result.seed < 10 || t.result.strategy != "old");
    all.reverse();
    let partial = compared(&all);
    assert!(partial.partial);
    assert_eq!(partial.seeds, whole.seeds);
    assert_eq!(
        (&partial.pairs, &partial.strategies),
        (&whole.pairs, &whole.strategies)
    );
    let mut unknown = trials(10);
    unknown[5].result.metric = None;
    let s = compared(&unknown);
    assert_eq!(s.seeds.len(), 9);
    assert!(
        s.notes.iter().any(|n| n.contains("1 of the architectures")),
        "{:?}",
        s.notes
    );
    let nothing = compared(&[]);
    assert!(nothing.seeds.is_empty() && nothing.strategies.is_empty());
}

/// Largest count that a rate of `p` gives in `n` cases but once in a thousand times or so.
fn bound(p: f64, n: usize) -> f64 {
    p + 3.1 * (p * (1.0 - p) / n as f64).sqrt()
}

#[test]
fn false_alarms_keep_to_the_level_and_planted_differences_are_found() {
    let repeats = 1000;
    for noise in [Noise::Normal, Noise::Skewed, Noise::Rounded] {
        let with = |ahead: f64| Simulation {
            strategies: 4,
            seeds: 10,
            ahead,
            noise,
            level: 0.05,
        };
        let null = with(0.0).rates(repeats, 11);
        assert!(null.any <= bound(0.05, repeats), "{noise:?}: {null:?}");
        // The rule without Holm's correction must not pass.
        assert!(
            null.any_uncorrected > bound(0.05, repeats),
            "{noise:?}: {null:?}"
        );
        assert!(null.better <= null.any);
        let planted = with(3.0).rates(repeats, 12);
        assert!(planted.better > 0.9, "{noise:?}: {planted:?}");
    }
}

#[test]
fn the_metric_is_chosen_as_documented() {
    let nb201 = [
        "valid/cifar10",
        "test/cifar100",
        "test/cifar10@12",
        "test/cifar10",
    ];
    assert_eq!(choose_metric(&nb201, "cifar10"), Some("test/cifar10"));
    assert_eq!(choose_metric(&nb201, "CIFAR100"), Some("test/cifar100"));
    assert_eq!(choose_metric(&nb201, "synthetic"), Some("test/cifar10"));
    assert_eq!(
        choose_metric(&["valid", "test", "test@4"], "x"),
        Some("test")
    );
    assert_eq!(choose_metric(&["valid", "valid@4"], "x"), Some("valid"));
    assert_eq!(choose_metric(&["value"], "x"), Some("value"));
    assert_eq!(choose_metric(&[], "x"), None);
    // Less of these is better, and they are no worth.
    let of_a_supernet = ["cost/params", "supernet-accuracy"];
    assert_eq!(
        choose_metric(&of_a_supernet, "x"),
        Some("supernet-accuracy")
    );
    assert_eq!(choose_metric(&["cost/params", "hypervolume"], "x"), None);
}

/// A result with a regret in what is the benchmark's.
fn outcome(metrics: &[&str], of_benchmark: &[&str], known: bool) -> Outcome {
    let figures = |names: &[&str]| -> BTreeMap<String, f64> {
        names.iter().map(|n| ((*n).to_owned(), 0.5)).collect()
    };
    serde_json::from_value(serde_json::json!({
        "genotype": {"space": "space", "cells": []}, "choice": [], "facts": {}, "marginals": null, "entropy": null,
        "sharpness": null, "metrics": figures(metrics), "regret": figures(of_benchmark), "known": known, "epochs": 1,
        "steps": 1, "reason": "done",
    }))
    .unwrap()
}

#[test]
fn a_strategys_own_figure_is_nobody_elses() {
    let rsps = outcome(&["supernet-accuracy", "value"], &["value"], true);
    let darts = outcome(&["value"], &["value"], true);
    let metrics = Metrics::new(
        [
            ("rsps", Some(&rsps)),
            ("darts", Some(&darts)),
            ("later", None),
        ]
        .into_iter(),
    );
    let (metric, why) = metrics.choose("x").unwrap();
    assert_eq!(metric, "value");
    assert!(
        why.contains("`value` is compared, the first by name, for want of a test"),
        "{why}"
    );
    metrics.check("value", "space").unwrap();
    let error = metrics.check("supernet-accuracy", "space").unwrap_err();
    assert!(
        error
            .to_string()
            .contains("darts has value; rsps has supernet-accuracy, value"),
        "{error}"
    );

    // A loss would be taken for the better the larger it is.
    let train = outcome(&["test-loss", "test-top1"], &[], true);
    let metrics = Metrics::new([("a", Some(&train)), ("b", Some(&train))].into_iter());
    let why = metrics.choose("x").unwrap_err();
    assert!(
        why.contains("can name one that all have: test-loss, test-top1"),
        "{why}"
    );
    metrics.check("test-top1", "space").unwrap();
    let nothing = outcome(&[], &[], true);
    let metrics = Metrics::new([("a", Some(&train)), ("b", Some(&nothing))].into_iter());
    let why = metrics.choose("x").unwrap_err();
    assert!(
        why.contains("a has test-loss, test-top1; b has none; no figure is had by all"),
        "{why}"
    );
    // What the benchmark does not know says nothing of what it has.
    let lacking = outcome(&["own"], &[], false);
    let metrics = Metrics::new([("a", Some(&darts)), ("b", Some(&lacking))].into_iter());
    assert_eq!(metrics.choose("x").unwrap().0, "value");
}

proptest! {
    /// Whoever measures what of itself, and in whatever order trials are read: the metric is the benchmark's, and the same.
    #[test]
    fn the_metric_does_not_depend_on_figures_of_strategies_own(
        table in prop::collection::btree_set("(test|valid|value)(/[ab])?(@4)?", 1..5),
        own in prop::collection::vec(prop::collection::btree_set("(test|a|valid)(-loss|/own)", 0..4), 1..5),
        turn in 0_usize..5,
    ) {
        let table: Vec<&str> = table.iter().map(String::as_str).collect();
        let outcomes: Vec<Outcome> = own
            .iter()
            .map(|own| {
                let all: Vec<&str> = own.iter().map(String::as_str).chain(table.iter().copied()).collect();
                outcome(&all, &table, true)
            })
            .collect();
        let names: Vec<String> = (0..outcomes.len()).map(|i| format!("s{i}")).collect();
        let mut trials: Vec<(&str, Option<&Outcome>)> =
            names.iter().map(String::as_str).zip(outcomes.iter().map(Some)).collect();
        let count = trials.len();
        trials.rotate_left(turn % count);
        let metrics = Metrics::new(trials.into_iter());
        let chosen = metrics.choose("a").unwrap();
        prop_assert_eq!(Some(chosen.0), choose_metric(&table, "a"));
    }
}

const PLAN: &str = r#"
seeds = [4, 2]
strategies = ["darts", { name = "vim", preset = "p", settings = { strategy.lr = 0.1, trainer = { epochs = 3 } } }]
spaces = ["a", "dir/b.toml"]
datasets = ["d"]
budgets = [{ unit = "images", amount = 1_000 }]
[set]
data_dir = "x"
trainer.epochs = 9
"#;

fn planned(text: &str) -> Vec<Trial> {
    let file = PlanFile::parse(Path::new("some/name.toml"), text.to_owned()).unwrap();
    let options = |space: &str| Ok(vec![("space.name".to_owned(), format!("{space:?}"))]);
    file.trials(options).unwrap()
}

#[test]
fn a_plan_becomes_trials_with_their_settings() {
    let trials = planned(PLAN);
    assert_eq!(trials.len(), 2 * 2 * 4);
    assert!(trials[..8].iter().all(|t| t.seed == 4) && trials[8..].iter().all(|t| t.seed == 2));
    let vim = &trials[1];
    assert_eq!(
        (vim.id.as_str(), vim.strategy.as_str()),
        ("vim-p-a-d-1000images-s4", "vim-p")
    );
    let option = |key: &str| {
        let of_key: Vec<&str> = vim
            .options
            .iter()
            .filter(|o| o.0 == key)
            .map(|o| o.1.as_str())
            .collect();
        assert_eq!(of_key.len(), 1, "{key}");
        of_key[0].to_owned()
    };
    // What is said of a strategy is stronger than what is said of all.
    assert_eq!(option("trainer.epochs"), "3");
    assert_eq!(option("strategy.lr"), "0.1");
    assert_eq!(option("strategy.preset"), "\"p\"");
    assert_eq!(option("trainer.budget.amount"), "1000");
    assert_eq!(
        (option("seed"), option("data_dir")),
        ("4".into(), "\"x\"".into())
    );
    assert_eq!(
        (trials[4].space.as_str(), trials[3].strategy.as_str()),
        ("b", RANDOM_ARCHITECTURES)
    );
    let ids: std::collections::BTreeSet<_> = trials.iter().map(|t| &t.id).collect();
    assert_eq!(ids.len(), trials.len());
}

#[test]
fn a_plan_may_grow_and_its_data_may_move_but_nothing_else() {
    let begun = planned(PLAN);
    for (from, to) in [
        ("[4, 2]", "[4, 2, 7]"),
        ("\"darts\",", "\"darts\", \"new\","),
        ("\"x\"", "\"y\""),
    ] {
        assert_eq!(
            differences(&begun, &planned(&PLAN.replace(from, to))),
            Vec::<String>::new(),
            "{to}"
        );
    }
    for (from, to, what) in [
        ("[4, 2]", "[4]", "no longer in the plan"),
        (
            "epochs = 9",
            "epochs = 8",
            "`trainer.epochs` of darts was 9 and is 8",
        ),
        (
            "lr = 0.1",
            "lr = 0.3",
            "`strategy.lr` of vim-p was 0.1 and is 0.3",
        ),
        (
            "trainer.epochs = 9",
            "",
            "`trainer.epochs` of darts was 9 and is not set",
        ),
        ("amount = 1_000", "amount = 2000", "no longer in the plan"),
    ] {
        let found = differences(&begun, &planned(&PLAN.replace(from, to)));
        assert!(found.iter().any(|f| f.contains(what)), "{to}: {found:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Cut anywhere, or with a byte changed, a plan is read or refused, but never ends the program.
    #[test]
    fn no_plan_panics(at in 0..PLAN.len(), byte in 0x20_u8..0x7f) {
        let mut changed = PLAN.as_bytes().to_vec();
        changed[at] = byte;
        for text in [PLAN[..at].to_owned(), String::from_utf8(changed).unwrap()] {
            let _ = PlanFile::parse(Path::new("p.toml"), text);
        }
    }
}
