//! Tables of known results.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::arch::Genotype;
use crate::error::Result;

/// What a benchmark knows of an architecture: named metrics (higher is better) and what training it would cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Metric name, for example `test/cifar10`, to value.
    pub metrics: BTreeMap<String, f64>,
    /// Those of the metrics that nobody measured, a model predicts them: by name the ends of the interval that the measured
    /// value lies in with a probability of 95 %.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub predicted: BTreeMap<String, [f64; 2]>,
    /// Simulated seconds of training, where known.
    pub seconds: Option<f64>,
    /// What it costs to learn a metric: simulated seconds of the training that shows it, by the metric's name. Only of
    /// metrics that a search may go by, those of validation, and where known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub costs: BTreeMap<String, f64>,
    /// What else is known and is no judgement, for example the number of parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, f64>,
}

/// Where a benchmark's numbers come from. Kept with what a run found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// What is looked up in, in words.
    pub source: String,
    /// What tells two tables apart, for example a BLAKE3; none for a closed form. A run does not go on with another.
    pub checksum: Option<String>,
    /// What [`Benchmark::optimum`] is the best of, in words.
    pub optimum: String,
}

/// Where an architecture stands among those that a benchmark knows, by one metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// 1 for the best; equals share the better place.
    pub rank: u64,
    /// How many have a value.
    pub of: u64,
    /// The mean of all values: what an architecture drawn from them uniformly is worth.
    pub mean: f64,
}

/// A table, or a closed form, that answers without training.
pub trait Benchmark: Send + Sync {
    /// The score of an architecture; none where a partial table lacks it.
    ///
    /// # Errors
    /// An architecture of another space, and a table that can't be read.
    fn query(&self, genotype: &Genotype) -> Result<Option<Score>>;

    /// The best value of every metric, for regret: over the whole space, or over what is known of it, as
    /// [`Benchmark::provenance`] says.
    fn optimum(&self) -> &BTreeMap<String, f64>;

    /// Where the numbers come from.
    fn provenance(&self) -> Provenance;

    /// Where a score stands among all that is known, by its metrics; empty of benchmarks that don't tell. May read a whole
    /// table.
    ///
    /// # Errors
    /// A table that can't be read.
    fn standing(&self, _score: &Score) -> Result<BTreeMap<String, Standing>> {
        Ok(BTreeMap::new())
    }

    /// Epochs of the whole training, whose metrics have no `@`; none where that means nothing.
    fn epochs(&self) -> Option<u64> {
        None
    }

    /// Names of the datasets that the numbers were measured on; empty where that means nothing.
    fn datasets(&self) -> Vec<String> {
        vec![]
    }
}

/// The typed settings of a benchmark.
#[typetag::serde(tag = "name")]
pub trait BenchmarkConfig: Send + Sync + std::fmt::Debug {
    /// Opens the benchmark for a space, given the space's resolved settings (its section of the configuration). None
    /// where its table has not been imported and none is named: the search then runs without.
    ///
    /// # Errors
    /// A space that it does not know, and a table that is named but can't be used.
    fn open(&self, space: &Value) -> Result<Option<Box<dyn Benchmark>>>;
}
