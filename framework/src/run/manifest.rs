//! What a run was made with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::registry::Registry;

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
    /// CPU threads.
    pub threads: i32,
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
    /// BLAKE3 of the settings that decide the numbers.
    pub fingerprint: String,
    /// When the run was started, RFC 3339.
    pub started: String,
}

impl Manifest {
    /// The manifest of a run that starts now.
    pub fn now(
        device: String,
        data: String,
        benchmark: Option<String>,
        fingerprint: String,
    ) -> Result<Self> {
        let plugins = Registry::load()?
            .all()
            .iter()
            .map(|p| (p.crate_name.to_owned(), p.crate_version.to_owned()))
            .collect();
        Ok(Self {
            nasfw: env!("CARGO_PKG_VERSION").into(),
            libtorch: crate::device::libtorch_version().into(),
            plugins,
            device,
            platform: format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
            threads: tch::get_num_threads(),
            micro_batch: None,
            data,
            notes: vec![],
            benchmark,
            fingerprint,
            started: jiff::Timestamp::now().to_string(),
        })
    }
}
