//! What was measured.

use std::collections::BTreeMap;

use serde::Serialize;

use super::machine::Machine;
use super::phases::Phases;

/// Everything that was measured on a space.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The device in words.
    pub device: String,
    /// CPU threads of libtorch.
    pub threads: i32,
    /// Images a batch.
    pub batch: i64,
    /// Shape of a batch.
    pub images: Vec<i64>,
    /// Weights of the supernet.
    pub parameters: i64,
    /// Multiply-adds of one image through the supernet, where they can be counted.
    pub macs: Option<i64>,
    /// The bare supernet.
    pub plain: Plain,
    /// The bare supernet with the gradient of the architecture, too.
    pub joint: Timing,
    /// Strategies by name.
    pub strategies: BTreeMap<String, Timing>,
    /// One candidate a row instead of all.
    pub single_path: SinglePath,
    /// The machine's limits, if they were asked for.
    pub machine: Option<Machine>,
}

impl Report {
    /// Floating-point operations of a plain step: forward pass, and backward pass of twice its cost.
    pub fn flops(&self) -> Option<f64> {
        Some(3.0 * 2.0 * self.macs? as f64 * self.batch as f64)
    }
}

/// The bare supernet's step, and what it is measured against.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plain {
    /// The step.
    #[serde(flatten)]
    pub timing: Timing,
    /// Resident memory before anything was built: the program and its libraries.
    pub libraries_bytes: Option<u64>,
}

/// A kind of step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    /// Median seconds of a step.
    pub seconds: f64,
    /// Seconds of every step.
    pub samples: Vec<f64>,
    /// Images that losses were taken on, a second; an image counts as often as a step uses it.
    pub images_per_second: f64,
    /// Median over rounds of this step's seconds over the plain step's.
    pub ratio: f64,
    /// The same over those of the plain step with the architecture's gradient.
    pub ratio_joint: f64,
    /// Largest resident memory of the process while it warmed up.
    pub peak_bytes: Option<u64>,
    /// Operator calls of one step.
    pub operators: Operators,
    /// Mean seconds of each phase.
    pub phases: Phases,
}

/// Operator calls of libtorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Operators {
    /// All.
    pub all: i64,
    /// Those that call no other operator.
    pub leaves: i64,
}

/// Mean seconds of steps with one candidate a row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SinglePath {
    /// One drawn candidate in every row.
    pub sampled: f64,
    /// The same candidate in every row, over all candidates.
    pub everywhere: f64,
    /// `sampled` over `everywhere`.
    pub ratio: f64,
    /// `sampled` over the step with all candidates.
    pub of_all: f64,
}

/// The middle of an odd number of values, the mean of the two middle ones of an even number; NaN of none.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = values.into_iter().collect();
    all.sort_by(f64::total_cmp);
    match all.len() {
        0 => f64::NAN,
        n => (all[(n - 1) / 2] + all[n / 2]) / 2.0,
    }
}

/// Median of the ratios of values that were measured side by side.
pub(super) fn median_ratio(values: &[f64], to: &[f64]) -> f64 {
    median(values.iter().zip(to).map(|(a, b)| a / b))
}
