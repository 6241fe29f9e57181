//! What belongs to the whole process: its memory, which the planner measures, and flags of libtorch.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    missing_docs
)]

#[path = "it/fixture.rs"]
mod fixture;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fixture::{config, folder, search, tensors};
use nasfw_framework::config::RunConfig;
use nasfw_framework::run::{MANIFEST, Manifest, RunFolder};
use nasfw_framework::trainer::Outcome;
use nasfw_framework::{Error, Result};
use nasfw_kernels::{memory, precision};
use tch::{Cuda, Device, Kind, Tensor};

const MIB: u64 = 1 << 20;

/// Weights of 46 MB and activations of about 20 MB an image, in two batches of 13 images.
const LARGE: [&str; 3] = [
    "dataset.classes=60000",
    "trainer.batch_size=13",
    "trainer.epochs=1",
];

/// Tests take turns: each would disturb what the others measure.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of the process as it stands.
fn now() -> u64 {
    assert!(memory::reset_peak(Device::Cpu));
    memory::peak(Device::Cpu).unwrap()
}

/// A run whose steps may need so much more than the process holds now.
fn limited(at: &Path, mebibytes: u64) -> (RunConfig, RunFolder) {
    let limit = format!("trainer.memory={}", now() + mebibytes * MIB);
    let config = config(&[&LARGE[..], &[&limit]].concat()).unwrap();
    let run = folder(at, &config);
    (config, run)
}

fn micro_batch(run: &RunFolder) -> usize {
    let manifest: Manifest = run.read_json(MANIFEST).unwrap();
    manifest.micro_batch.unwrap()
}

/// Interrupted after every step until it is done.
fn in_pieces(config: &RunConfig, run: &RunFolder) -> Result<Outcome> {
    loop {
        match search(config, run, true) {
            Err(Error::Interrupted { .. }) => {}
            other => return other,
        }
    }
}

/// More memory, larger micro-batches, up to the whole batch; too little is refused with what to type.
#[test]
fn the_planner_chooses_by_the_limit() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let chosen = |mebibytes: u64| {
        let (config, run) = limited(dir.path(), mebibytes);
        match search(&config, &run, true) {
            Err(Error::Interrupted { .. }) => Ok(micro_batch(&run)),
            other => other.map(|_| micro_batch(&run)),
        }
    };
    // Between a limit that is too low for one image and one that the whole batch fits, there are those for a part.
    let (mut low, mut high) = (50, 2000);
    assert_eq!(chosen(high).unwrap(), 13);
    let part = (0..10).find_map(|_| {
        let middle = (low + high) / 2;
        match chosen(middle) {
            Err(_) => low = middle,
            Ok(13) => high = middle,
            Ok(part) => return Some(part),
        }
        None
    });
    assert!(part.is_some_and(|p| (1..13).contains(&p)), "{part:?}");
    let error = chosen(50).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(
        error.help().unwrap().contains("--set trainer.memory="),
        "{error}"
    );
}

/// A process that goes on takes the micro-batch that was chosen, although it has less memory to offer.
#[test]
fn a_resumed_run_does_not_choose_again() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    let (config, run) = limited(dir.path(), 450);
    search(&config, &run, true).unwrap_err();
    let chosen = micro_batch(&run);
    let ballast = Tensor::ones([1000 * MIB as i64 / 4], (Kind::Float, Device::Cpu));
    in_pieces(&config, &run).unwrap();
    let fresh = folder(dir.path(), &config);
    assert!(
        search(&config, &fresh, false)
            .unwrap_err()
            .to_string()
            .contains("trainer.memory")
    );
    drop(ballast);

    let set = format!("trainer.micro_batch={chosen}");
    let same = self::config(&[&LARGE[..], &[&set]].concat()).unwrap();
    let whole = folder(dir.path(), &same);
    search(&same, &whole, false).unwrap();
    assert!(tensors(&run) == tensors(&whole));
}

#[test]
fn flags_for_gpus_are_set_for_every_run() {
    let _turn = turn();
    let dir = tempfile::tempdir().unwrap();
    for on in [true, false] {
        let set = [
            format!("trainer.tf32={on}"),
            format!("trainer.cudnn_benchmark={on}"),
            format!("trainer.deterministic={}", !on),
        ];
        let config = config(&[&set[0], &set[1], &set[2]]).unwrap();
        search(&config, &folder(dir.path(), &config), false).unwrap();
        let flags = (
            precision::tf32(),
            precision::cudnn_benchmark(),
            precision::deterministic(),
        );
        assert_eq!(flags, (on, on, !on));
    }
    assert!(!Cuda::is_available() || memory::peak(Device::Cuda(0)).is_some());
}
