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

use std::sync::{Mutex, PoisonError};

use fixture::{config, folder, search, tensors};
use nasfw_framework::Error;
use nasfw_framework::run::{MANIFEST, Manifest, RunFolder};
use nasfw_kernels::{memory, precision};
use tch::{Device, Kind, Tensor};

/// Tests take turns: each would disturb what the others measure.
static TURN: Mutex<()> = Mutex::new(());

const MIB: u64 = 1 << 20;

/// A problem whose activations take about 10 MiB an image.
const LARGE: [&str; 5] = [
    "dataset.classes=60000",
    "trainer.batch_size=26",
    "trainer.epochs=1",
    "trainer.checkpoint_every=1",
    "strategy.name=fixture-script",
];

/// Memory of the process as it stands.
fn now() -> u64 {
    assert!(memory::reset_peak(Device::Cpu));
    memory::peak(Device::Cpu).unwrap()
}

fn micro_batch(run: &RunFolder) -> Option<usize> {
    run.read_json::<Manifest>(MANIFEST).unwrap().micro_batch
}

/// A run with so much memory above what the process has already; none where it was refused.
fn within(mebibytes: u64) -> Result<usize, Error> {
    let dir = tempfile::tempdir().unwrap();
    let limit = now() + mebibytes * MIB;
    let set = [&LARGE[..], &[&format!("trainer.memory={limit}")]].concat();
    let config = config(&set).unwrap();
    let run = folder(dir.path(), &config);
    search(&config, &run, false)?;
    let peak = memory::peak(Device::Cpu).unwrap();
    println!("{mebibytes} MiB: {:?}, {} above the limit", micro_batch(&run), peak as i64 - limit as i64);
    Ok(micro_batch(&run).unwrap())
}

#[test]
fn the_planner_takes_what_fits() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for m in [3000, 1000, 800, 600, 500, 400, 300, 200, 100, 10] {
        println!("{m} {:?}", within(m));
    }
}
