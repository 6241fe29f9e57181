//! Runs: same seed same result, exact resume from any checkpoint, damaged files.

use std::fs;

use nasfw_framework::Error;
use nasfw_framework::run::{CHECKPOINTS, EVENTS, RunFolder};

use super::fixture::{comparable, config, folder, search, tensors};

#[test]
fn same_seed_same_run_and_another_seed_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let once = |seed: u64| {
        let config = config(&[&format!("seed={seed}")]).unwrap();
        let run = folder(dir.path(), &config);
        let outcome = search(&config, &run, false).unwrap();
        (outcome, tensors(&run), comparable(&run))
    };
    assert!(once(1) == once(1));
    let (a, b) = (once(1), once(2));
    assert!(a.1 != b.1);
}

/// A run that is interrupted after every single step ends like one that never was, in whichever way it goes on.
#[test]
fn resume_is_exact_at_every_step() {
    // Images in memory, and images that are decoded ahead at random; whole batches, and micro-batches.
    for (script, decoded, micro) in [
        ("", "no", 0),
        ("set", "no", 0),
        ("rollback", "no", 0),
        ("rebuild", "no", 0),
        ("", "random", 0),
        ("set", "random", 0),
        ("rollback", "random", 0),
        ("", "no", 3),
        ("set", "random", 3),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&[
            "trainer.epochs=4",
            &format!("strategy.script={script}"),
            &format!("dataset.decoded={decoded}"),
            &format!("trainer.micro_batch={micro}"),
        ])
        .unwrap();
        let whole = folder(dir.path(), &config);
        let outcome = search(&config, &whole, false).unwrap();

        let pieces = folder(dir.path(), &config);
        let mut interruptions = 0;
        let resumed = loop {
            match search(&config, &pieces, true) {
                Err(Error::Interrupted { .. }) => interruptions += 1,
                other => break other.unwrap(),
            }
        };
        assert!(interruptions >= 8, "{interruptions}");
        assert_eq!(outcome, resumed, "{script}");
        assert!(tensors(&whole) == tensors(&pieces), "{script}");
        assert_eq!(comparable(&whole), comparable(&pieces), "{script}");
    }
}

#[test]
fn decoded_images_train_like_images_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let once = |decoded: &str| {
        let config = config(&[&format!("dataset.decoded={decoded}")]).unwrap();
        let run = folder(dir.path(), &config);
        search(&config, &run, false).unwrap();
        tensors(&run)
    };
    assert!(once("no") == once("plain"));
    assert!(once("no") != once("random"));
}

#[test]
fn an_image_that_cannot_be_decoded_stops_the_run_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&["dataset.decoded=bad"]).unwrap();
    let error = search(&config, &folder(dir.path(), &config), false).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("7.jpg"), "{error}");
}

#[test]
fn a_finished_run_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&["strategy.script=stop"]).unwrap();
    let run = folder(dir.path(), &config);
    let first = search(&config, &run, false).unwrap();
    assert_eq!(first, search(&config, &run, false).unwrap());
}

fn newest(run: &RunFolder) -> std::path::PathBuf {
    let mut all: Vec<_> = fs::read_dir(run.path().join(CHECKPOINTS))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    all.sort();
    all.pop().unwrap()
}

fn interrupted() -> (
    tempfile::TempDir,
    nasfw_framework::config::RunConfig,
    RunFolder,
) {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&[]).unwrap();
    let run = folder(dir.path(), &config);
    for _ in 0..3 {
        assert!(matches!(
            search(&config, &run, true),
            Err(Error::Interrupted { .. })
        ));
    }
    (dir, config, run)
}

/// Any single flipped byte and any truncation of the newest checkpoint is noticed, and the one before takes over.
#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let (_dir, config, run) = interrupted();
    let file = newest(&run);
    let good = fs::read(&file).unwrap();
    let reference = {
        let other = folder(_dir.path(), &config);
        search(&config, &other, false).unwrap()
    };
    let events = fs::read(run.path().join(EVENTS)).unwrap();
    let before: Vec<_> = fs::read_dir(run.path().join(CHECKPOINTS))
        .unwrap()
        .map(|e| e.unwrap().path())
        .map(|p| (p.clone(), fs::read(p).unwrap()))
        .collect();
    let mut damages: Vec<Vec<u8>> = [0, 1, 8, 100, good.len() / 2, good.len() - 1]
        .iter()
        .map(|&n| good[..n].to_vec())
        .collect();
    for at in (0..good.len()).step_by(good.len() / 23) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        damages.push(bad);
    }
    for bad in damages {
        let _ = fs::remove_dir_all(run.path().join(CHECKPOINTS));
        fs::create_dir(run.path().join(CHECKPOINTS)).unwrap();
        for (path, bytes) in &before {
            fs::write(path, bytes).unwrap();
        }
        fs::write(run.path().join(EVENTS), &events).unwrap();
        fs::write(&file, &bad).unwrap();
        assert_eq!(search(&config, &run, false).unwrap(), reference);
    }
}

#[test]
fn when_all_are_damaged_the_run_says_so_and_touches_nothing() {
    let (_dir, config, run) = interrupted();
    for entry in fs::read_dir(run.path().join(CHECKPOINTS)).unwrap() {
        fs::write(entry.unwrap().path(), b"not a checkpoint").unwrap();
    }
    let events = fs::read(run.path().join(EVENTS)).unwrap();
    let error = search(&config, &run, false).unwrap_err();
    assert_eq!(error.exit_code(), 4);
    assert!(
        error.to_string().contains("not a whole checkpoint"),
        "{error}"
    );
    assert_eq!(fs::read(run.path().join(EVENTS)).unwrap(), events);
}

#[test]
fn a_checkpoint_of_other_settings_is_refused() {
    let (_dir, _, run) = interrupted();
    let error = search(&config(&["seed=9"]).unwrap(), &run, false).unwrap_err();
    assert!(
        error.to_string().contains("another configuration"),
        "{error}"
    );
    assert_eq!(error.exit_code(), 4);
}

#[test]
fn a_run_has_one_process() {
    let (_dir, _, run) = interrupted();
    let error = RunFolder::open(run.path()).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
}

#[test]
fn a_diverging_search_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&["trainer.weights.lr=1e300", "trainer.weights.clip=0"]).unwrap();
    let error = search(&config, &folder(dir.path(), &config), false).unwrap_err();
    assert_eq!(error.exit_code(), 7, "{error}");
}
