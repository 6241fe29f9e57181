//! What a run was made with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::host;
use crate::inputs::Inputs;

/// A process that worked on a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Name of the host.
    pub host: String,
    /// Number of the process there.
    pub process: u32,
    /// The processor in words; empty where the system does not tell.
    pub processor: String,
    /// CPU threads.
    pub threads: i32,
    /// When it began, RFC 3339.
    pub since: String,
    /// Its number among those that worked together; none where it was alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

impl Worker {
    /// This process, which begins now.
    pub fn this() -> Self {
        Self {
            host: host::host(),
            process: std::process::id(),
            processor: host::processor(),
            threads: tch::get_num_threads(),
            since: jiff::Timestamp::now().to_string(),
            rank: None,
        }
    }
}

/// Versions, device and data of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the framework.
    pub nasfw: String,
    /// Version of the libtorch that the program was built with.
    pub libtorch: String,
    /// Version of every crate that registers a plugin.
    pub plugins: BTreeMap<String, String>,
    /// Device in words.
    pub device: String,
    /// Processor architecture and operating system.
    pub platform: String,
    /// CPU threads. A process that goes on takes as many.
    pub threads: i32,
    /// Every process that worked on the run, in order.
    #[serde(default)]
    pub workers: Vec<Worker>,
    /// Images a forward and backward pass at most, as set or as the memory planner chose; none means whole batches.
    #[serde(default)]
    pub micro_batch: Option<usize>,
    /// BLAKE3 of all images and labels.
    pub data: String,
    /// What loading the data warned of, for example of other files than the published ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Checksum of the benchmark's table; none without one.
    #[serde(default)]
    pub benchmark: Option<String>,
    /// Checksums of the tables of costs that limits go by, by the names of the costs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub costs: BTreeMap<String, String>,
    /// BLAKE3 of the settings that decide the numbers.
    pub fingerprint: String,
    /// What the network takes, and what its outputs mean. Runs of earlier versions lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Inputs>,
    /// When the run was started, RFC 3339.
    pub started: String,
}

impl Manifest {
    /// Notes a process that goes on with the run, and warns where its numbers may get other last bits.
    pub(crate) fn goes_on(&mut self, worker: Worker) {
        if worker.threads != self.threads {
            tracing::warn!(
                "this run began with {} CPU threads and goes on with {}: its last bits may differ from those of an \
                 uninterrupted run",
                self.threads,
                worker.threads
            );
        }
        let processor = self.workers.last().map(|w| w.processor.clone());
        if let Some(processor) = processor.filter(|p| *p != worker.processor) {
            tracing::warn!(
                "this run was on a processor `{processor}` and goes on with `{}`: processors can round differently",
                worker.processor
            );
        }
        self.workers.push(worker);
    }

    /// The manifest of a run that starts now, with the version of every crate that registers a plugin.
    pub fn now(
        plugins: BTreeMap<String, String>,
        device: String,
        data: String,
        benchmark: Option<String>,
        fingerprint: String,
    ) -> Self {
        Self {
            nasfw: env!("CARGO_PKG_VERSION").into(),
            libtorch: crate::device::libtorch_version().into(),
            plugins,
            device,
            platform: format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
            threads: tch::get_num_threads(),
            workers: vec![Worker::this()],
            micro_batch: None,
            data,
            notes: vec![],
            benchmark,
            costs: BTreeMap::new(),
            fingerprint,
            inputs: None,
            started: jiff::Timestamp::now().to_string(),
        }
    }
}
