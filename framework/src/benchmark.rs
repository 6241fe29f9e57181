//! Tables of known results.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::arch::Genotype;
use crate::error::Result;

/// What a benchmark knows of an architecture: named metrics (higher is better) and what training it would cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Metric name, for example `test/cifar10`, to value.
    pub metrics: BTreeMap<String, f64>,
    /// Simulated seconds of training, where known.
    pub seconds: Option<f64>,
}

/// A table, or a closed form, that answers without training.
pub trait Benchmark: Send + Sync {
    /// The score of an architecture; none where a partial table lacks it.
    fn query(&self, genotype: &Genotype) -> Result<Option<Score>>;

    /// The best value of every metric over the whole space, for regret.
    fn optimum(&self) -> &BTreeMap<String, f64>;
}

/// The typed settings of a benchmark.
#[typetag::serde(tag = "name")]
pub trait BenchmarkConfig: Send + Sync + std::fmt::Debug {
    /// Opens the benchmark for a space, given the space's resolved settings (its section of the configuration).
    fn open(&self, space: &Value) -> Result<Box<dyn Benchmark>>;
}
