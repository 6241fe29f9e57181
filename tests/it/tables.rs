//! Searches in tables: simulated seconds, partial tables, and evolution against random search.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use nasfw::framework::{Error, Result};
use nasfw_spaces::tables::nasbench201::FAMILY;

use crate::program::skipped;
use crate::strategies::{Done, search};

/// Every `step`-th architecture of NAS-Bench-201, with made-up figures: 4 hours of training each, and an accuracy after
/// 12 epochs that is the sum of the digits, after 200 epochs its half.
pub fn made_up(dir: &Path, step: usize) -> PathBuf {
    let mut header = String::from("ops");
    for c in ["c10", "c100", "in16"] {
        for column in [
            "val200_s0",
            "val200_s1",
            "val200_s2",
            "test200",
            "val12",
            "test12",
            "train_s",
        ] {
            write!(header, ",{c}_{column}").unwrap();
        }
        write!(header, ",params_{c}").unwrap();
    }
    let mut csv = header + ",macs_c10,c10_latency_s\n";
    for i in (0..15_625).step_by(step) {
        let digits: Vec<usize> = (0..6).map(|d| i / 5usize.pow(d) % 5).collect();
        let key: String = digits.iter().map(ToString::to_string).collect();
        let sum: usize = digits.iter().sum();
        let half = sum as f64 / 2.0;
        write!(csv, "{key}").unwrap();
        for _ in 0..3 {
            write!(csv, ",{half},{half},{half},{half},{sum},{sum},14400,1000").unwrap();
        }
        csv += ",1000,0.01\n";
    }
    import(dir, &dir.join("made-up.csv"), Some(&csv))
}

/// A table of a CSV, which is written first if it is given.
fn import(dir: &Path, csv: &Path, text: Option<&str>) -> PathBuf {
    if let Some(text) = text {
        std::fs::write(csv, text).unwrap();
    }
    let table = dir.join("nasbench201.table");
    let builder = (FAMILY.import)(&[csv.to_owned()]).unwrap();
    builder.write(&table).unwrap();
    table
}

/// A search in a table of NAS-Bench-201.
fn in_table(table: &Path, strategy: &str, seed: u64, more: &[&str]) -> Result<Done> {
    let set = [
        format!("strategy.name={strategy}"),
        "space.name=nasbench201".into(),
        "space.channels=2".into(),
        "space.cells=1".into(),
        "dataset.name=synthetic".into(),
        "dataset.images=8".into(),
        "trainer.epochs=1".into(),
        "trainer.log_every=1".into(),
        "trainer.budget.unit=simulated".into(),
        format!("benchmark.file={}", table.display()),
        format!("seed={seed}"),
    ];
    let set: Vec<&str> = set
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect();
    search(&set)
}

const RANDOM: [&str; 3] = ["strategy.score=benchmark", "strategy.samples=50", LOWEST];
const EVOLUTION: [&str; 1] = [LOWEST];
const NSGA2: [&str; 2] = [LOWEST, "strategy.population=6"];
const LOWEST: &str = "strategy.fidelity=lowest";
/// Small predictors.
const RANK_NOSH: [&str; 7] = [
    "strategy.score=benchmark",
    "strategy.levels=[12]",
    "strategy.proposals=4",
    "strategy.candidates=40",
    "strategy.predictor.hidden=8",
    "strategy.predictor.layers=1",
    "strategy.predictor.steps=5",
];
const ARCH2VEC: [&str; 10] = [
    "strategy.score=benchmark",
    LOWEST,
    "strategy.initial=4",
    "strategy.pool=300",
    "strategy.encoder.hidden=8",
    "strategy.encoder.layers=1",
    "strategy.encoder.latent=4",
    "strategy.encoder.epochs=1",
    "strategy.model.units=8",
    "strategy.model.epochs=5",
];
/// Every strategy that looks architectures up.
const ALL: [(&str, &[&str]); 5] = [
    ("random", &RANDOM),
    ("regularized-evolution", &EVOLUTION),
    ("nsga2", &NSGA2),
    ("rank-nosh", &RANK_NOSH),
    ("arch2vec-bo", &ARCH2VEC),
];

#[test]
fn simulated_seconds_end_a_search() {
    let dir = tempfile::tempdir().unwrap();
    let table = made_up(dir.path(), 1);
    // 12 of 200 epochs of 4 hours are 864 seconds: 11 of them fit into 10,000.
    for (strategy, more) in ALL {
        let mut more = more.to_vec();
        more.push("trainer.budget.amount=10000");
        let Done { outcome, events } = in_table(&table, strategy, 0, &more).unwrap();
        assert_eq!(
            outcome.reason,
            "the budget of 10000 simulated seconds is spent"
        );
        let scores = scalars(&events, "score");
        assert_eq!(
            scores.len(),
            12,
            "11 scores, and a step that was too dear: {scores:?}"
        );
        let best = scores.iter().copied().fold(0.0, f64::max);
        let metrics = outcome.metrics.unwrap();
        assert_eq!(metrics["valid/cifar10@12"], best);
        assert_eq!(metrics["test/cifar10"], best / 2.0);
        assert_eq!(outcome.curve.last().unwrap().simulated, Some(10_000.0));
    }
}

fn scalars(events: &[nasfw::framework::events::Event], name: &str) -> Vec<f64> {
    let values = events.iter().filter_map(|e| match e {
        nasfw::framework::events::Event::Progress { scalars, .. } => scalars.get(name).copied(),
        _ => None,
    });
    values.collect()
}

#[test]
fn what_a_partial_table_lacks_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let table = made_up(dir.path(), 3);
    for (strategy, more) in ALL {
        let mut more = more.to_vec();
        more.push("trainer.budget.amount=20000");
        let Done { outcome, events } = in_table(&table, strategy, 1, &more).unwrap();
        assert_eq!(outcome.known, Some(true));
        // 23 trainings fit; two thirds of what is drawn is missing.
        let missing = scalars(&events, "missing").last().copied().unwrap();
        assert_eq!(outcome.steps as f64, 23.0 + missing + 1.0);
        assert!((15.0..150.0).contains(&missing), "{missing}");
    }
}

#[test]
fn a_table_of_nearly_nothing_ends_the_search() {
    let dir = tempfile::tempdir().unwrap();
    let table = made_up(dir.path(), 15_000);
    for (strategy, more) in ALL {
        let mut more = more.to_vec();
        more.push("trainer.budget.amount=20000");
        match in_table(&table, strategy, 1, &more) {
            Ok(Done { outcome, .. }) => {
                assert!(
                    outcome.reason.starts_with("the table lacks the last 1"),
                    "{}",
                    outcome.reason
                );
            }
            Err(Error::Incompatible { what, why, .. }) => {
                assert_eq!(what, "a budget of simulated seconds");
                assert!(why.contains("would never end"), "{why}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_search_without_a_benchmark_says_so() {
    let sets = ["strategy.name=regularized-evolution", "space.name=toy-conv"];
    let Err(Error::Incompatible { why, help, .. }) = search(&sets) else {
        panic!("it must be refused")
    };
    assert!(
        why.contains("toy-conv") && help.contains("nasfw bench"),
        "{why} {help}"
    );
}

/// Means of what random search and evolution find on landscapes of 5⁸ architectures with 100 look-ups.
#[test]
fn evolution_beats_random_search() {
    const SEEDS: u64 = 20;
    let mean = |strategy: &str, more: &[&str]| -> f64 {
        let values = (0..SEEDS).map(|seed| {
            let set = [
                format!("strategy.name={strategy}"),
                "space.name=toy-planted".into(),
                "space.rows=8".into(),
                "space.candidates=5".into(),
                "trainer.epochs=1".into(),
                "trainer.budget.unit=simulated".into(),
                "trainer.budget.amount=100".into(),
                format!("space.landscape={seed}"),
                format!("seed={seed}"),
            ];
            let set: Vec<&str> = set
                .iter()
                .map(String::as_str)
                .chain(more.iter().copied())
                .collect();
            search(&set).unwrap().outcome.metrics.unwrap()["value"]
        });
        values.sum::<f64>() / SEEDS as f64
    };
    let (random, evolution) = (
        mean("random", &RANDOM),
        mean("regularized-evolution", &EVOLUTION),
    );
    println!("random {random:.3}, evolution {evolution:.3}");
    assert!(evolution > random + 0.1, "{evolution} {random}");
}

/// The protocol of NAS-Bench-201's paper, whose figures are 93.70 ± 0.36 for random search and 93.92 ± 0.30 for evolution.
#[test]
fn published_figures_of_nasbench201() {
    const SEEDS: u64 = 20;
    let folder = std::env::var_os("NASFW_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")),
        PathBuf::from,
    );
    let csv = folder.join("nasbench201.csv.gz");
    if !csv.exists() {
        skipped(
            "published_figures_of_nasbench201",
            "no nasbench201.csv.gz in NASFW_TEST_DATA",
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let table = import(dir.path(), &csv, None);
    for (strategy, more, published, sd) in [
        ("random", &RANDOM[..], 93.70, 0.36),
        ("regularized-evolution", &EVOLUTION, 93.92, 0.30),
    ] {
        let mut more = more.to_vec();
        more.extend(["trainer.budget.amount=12000", "trainer.log_every=1000"]);
        let found = (0..SEEDS).map(|seed| {
            let done = in_table(&table, strategy, seed, &more).unwrap();
            done.outcome.metrics.unwrap()["test/cifar10"]
        });
        let mean = found.sum::<f64>() / SEEDS as f64;
        println!("{strategy}: {mean:.2}, published {published} ± {sd}");
        assert!((mean - published).abs() < sd, "{strategy}: {mean}");
    }
}
