//! Exact resume, the hard way: real processes, killed with SIGKILL at random moments, for every registered strategy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nasfw::framework::events::Event;
use nasfw::framework::registry::{Kind, Registry};
use nasfw::framework::rng::Streams;
use nasfw::framework::run::{CHECKPOINTS, EVENTS, RESULT, read_events};
use safetensors::SafeTensors;

use crate::strategies::short;

fn nasfw(out: &Path, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_nasfw"))
        .args(args)
        .current_dir(out)
        .env("NASFW_NO_PROGRESS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(out.join("stderr.txt")).unwrap())
        .spawn()
        .unwrap()
}

fn finish(mut child: Child, out: &Path) {
    let status = child.wait().unwrap();
    assert!(
        status.success(),
        "{status}: {}",
        fs::read_to_string(out.join("stderr.txt")).unwrap()
    );
}

/// Waits until the process has written `lines` more events than `from`, or is done. True if it is still running.
fn wait_for_events(child: &mut Child, run: &Path, from: usize, lines: usize) -> bool {
    let began = Instant::now();
    loop {
        let now =
            fs::read(run.join(EVENTS)).map_or(0, |b| b.iter().filter(|b| **b == b'\n').count());
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if now >= from + lines {
            return true;
        }
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "the search does not move"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Every tensor of the newest checkpoint, bit by bit.
fn weights(run: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(run.join(CHECKPOINTS))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "safetensors"));
    files.sort();
    tensors(files.last().unwrap())
}

/// Every tensor of a checkpoint, bit by bit.
pub fn tensors(file: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = fs::read(file).unwrap();
    let mut all: Vec<_> = SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.data().to_vec()))
        .collect();
    all.sort();
    all
}

/// Events without seconds and without the marks of where a process began.
pub fn events(run: &Path) -> Vec<Event> {
    read_events(&run.join(EVENTS))
        .unwrap()
        .into_iter()
        .filter(|e| !matches!(e, Event::Started { .. }))
        .map(Event::reproducible)
        .collect()
}

/// `what` is a verb that trains, with its options.
pub fn killed_equals_whole(what: &[&str], seed: u64, kills: usize) {
    use rand::RngExt;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path();
    let run = |name: &str| {
        let mut args = what.to_vec();
        args.extend(["--out", ".", "--name", name, "--device", "cpu"]);
        if !what.contains(&"--threads") {
            args.extend(["--threads", "1"]);
        }
        args.extend([
            "--set",
            "trainer.log_every=1",
            "--set",
            "trainer.checkpoint_every=3",
        ]);
        nasfw(out, &args)
    };
    finish(run("whole"), out);
    let (whole, killed) = (out.join("whole"), out.join("killed"));
    let total = events(&whole).len();
    assert!(
        total > 12,
        "the run is too short to be killed in the middle: {total} events"
    );

    let label = what.join(" ");
    let mut rng = Streams::new(seed).at(&label, 0);
    let mut child = run("killed");
    let mut deaths = 0;
    for _ in 0..kills {
        let from =
            fs::read(killed.join(EVENTS)).map_or(0, |b| b.iter().filter(|b| **b == b'\n').count());
        let lines = rng.random_range(1..=total / 2);
        if !wait_for_events(&mut child, &killed, from.saturating_sub(4), lines) {
            break;
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(0..15)));
        child.kill().unwrap();
        child.wait().unwrap();
        deaths += 1;
        child = nasfw(out, &["resume", "killed"]);
    }
    finish(child, out);
    assert!(deaths > 0, "{label} was never killed");

    let (a, b) = (weights(&whole), weights(&killed));
    assert_eq!(
        a.iter().map(|t| &t.0).collect::<Vec<_>>(),
        b.iter().map(|t| &t.0).collect::<Vec<_>>()
    );
    for (x, y) in a.iter().zip(&b) {
        assert!(
            x.1 == y.1,
            "{label}, killed {deaths} times: tensor `{}` differs",
            x.0
        );
    }
    let result = |run: &Path| {
        fs::read_to_string(run.join(RESULT))
            .unwrap()
            .replace("killed", "whole")
    };
    assert_eq!(result(&whole), result(&killed), "{label}");
    assert_eq!(events(&whole), events(&killed), "{label}");
    println!("{label}: killed {deaths} times, bit-identical");
}

/// All strategies that search on any space. Three have tests of their own: `train` has nothing to decide (`retrain.rs`),
/// `regularized-evolution` and `nsga2` need a table (`tables.rs`).
pub fn searches() -> Vec<&'static str> {
    let registry = Registry::load().unwrap();
    let names = registry.of(Kind::Strategy).map(|p| p.name);
    names
        .filter(|n| {
            !["train", "regularized-evolution", "nsga2"].contains(n) && !UNTRAINED.contains(n)
        })
        .collect()
}

/// Strategies that train nothing, and take no losses: they score networks at their start.
pub const UNTRAINED: [&str; 2] = ["te-nas", "zero-cost"];

/// Strategies that differ in what they must keep. The conformance suite interrupts every one of them after every step.
const KEEPERS: [&str; 8] = [
    "darts",
    "darts-ada",
    "gdas",
    "p-darts",
    "random",
    "rsps",
    "sgas",
    "vim",
];

/// More of them: a controller, a natural gradient, switches, states of wrappers, trainings that are set aside. All others
/// are killed where all pairs are asked for (`cargo xtask test --all`).
const MORE_KEEPERS: [&str; 6] = [
    "asng",
    "bayesnas",
    "darts-pt",
    "enas",
    "ista-nas",
    "rank-nosh",
];

/// Strategies that are killed: all of them where that is asked for.
fn killed() -> Vec<&'static str> {
    let mut names = searches();
    if !super::spaces::all_pairs() {
        names.retain(|name| KEEPERS.contains(name) || MORE_KEEPERS.contains(name));
    }
    names
}

#[test]
fn strategies_survive_kill_9_bit_by_bit() {
    let strategies = killed();
    assert!(strategies.len() >= KEEPERS.len() + MORE_KEEPERS.len());
    for strategy in strategies {
        let seeds: &[u64] = if KEEPERS.contains(&strategy) {
            &[1, 2]
        } else {
            &[1]
        };
        let mut run = vec![
            "run",
            "--strategy",
            strategy,
            "--space",
            "toy-conv",
            "--epochs",
            "3",
            "--set",
            "trainer.batch_size=16",
        ];
        run.extend(short(strategy).iter().flat_map(|set| ["--set", set]));
        for seed in seeds {
            killed_equals_whole(&run, *seed, 2 * seeds.len());
        }
    }
}

#[test]
fn a_real_space_survives_kill_9_bit_by_bit() {
    let space = [
        "--space",
        "nasbench1shot1-s3",
        "--dataset",
        "synthetic",
        "--epochs",
        "2",
        "--set",
        "space.channels=4",
        "--set",
        "dataset.images=192",
        "--set",
        "trainer.batch_size=12",
    ];
    for strategy in KEEPERS {
        let run = [&["run", "--strategy", strategy], &space[..]].concat();
        killed_equals_whole(&run, 3, 3);
    }
}

/// Images that are decoded ahead, at random, on two threads.
#[test]
fn a_folder_of_images_survives_kill_9_bit_by_bit() {
    let images = tempfile::tempdir().unwrap();
    for (part, count) in [("train", 40), ("val", 4)] {
        for class in 0..2u32 {
            let folder = images.path().join(format!("{part}/class {class}"));
            fs::create_dir_all(&folder).unwrap();
            for i in 0..count {
                let pixel =
                    |x: u32, y: u32| image::Rgb([x, y, i].map(|v| (v * 11 + class * 97) as u8));
                let image = image::RgbImage::from_fn(12 + i % 5, 14, pixel);
                let format = if i % 2 == 0 { "png" } else { "jpg" };
                image.save(folder.join(format!("{i}.{format}"))).unwrap();
            }
        }
    }
    let dir = images.path().to_str().unwrap();
    let space = [
        "--space",
        "toy-conv",
        "--dataset",
        "image-folder",
        "--data-dir",
        dir,
        "--threads",
        "2",
        "--epochs",
        "3",
        "--set",
        "dataset.size=8",
        "--set",
        "dataset.resize=10",
        "--set",
        "trainer.batch_size=8",
        "--set",
        "trainer.augment.color_jitter=[0.4,0.4,0.4,0.2]",
    ];
    let run = [&["run", "--strategy", "darts"], &space[..]].concat();
    for seed in [1, 2] {
        killed_equals_whole(&run, seed, 4);
    }
}
