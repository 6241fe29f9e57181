//! What a search found, as `result.json` keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::arch::{Choice, Genotype, Group, Marginals};
use crate::benchmark::Provenance;
use crate::front::Front;
use crate::trust::Trust;

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The derived architecture.
    pub genotype: Genotype,
    /// The same as indices into the space's spec.
    pub choice: Choice,
    /// Name and settings of the space: with them the architecture means what it does. Runs of older versions lack it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub space: Value,
    /// Names of rows and candidates, in the order of `choice` and `marginals`. Runs of older versions lack them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// What the space adds, for example a benchmark's own encoding.
    pub facts: Map<String, Value>,
    /// The weights that derivation went by.
    #[serde(default, with = "crate::lossless")]
    pub marginals: Option<Marginals>,
    /// Normalised entropy of them: 1 uniform, 0 one-hot.
    #[serde(default, with = "crate::lossless")]
    pub entropy: Option<f64>,
    /// Mean over rows of the largest weight.
    #[serde(default, with = "crate::lossless")]
    pub sharpness: Option<f64>,
    /// The benchmark's metrics, and the strategy's own figures.
    #[serde(default, with = "crate::lossless")]
    pub metrics: Option<BTreeMap<String, f64>>,
    /// Optimum minus metric.
    #[serde(default, with = "crate::lossless")]
    pub regret: Option<BTreeMap<String, f64>>,
    /// Whether the benchmark knows the architecture; none without a benchmark, and where a model predicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<bool>,
    /// Where metrics and regret come from; none without a benchmark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<Provenance>,
    /// What the benchmark says of the architecture before training, every few steps and after every epoch, in the order
    /// of the events: an epoch that was rolled back is there, and comes again. Empty without a benchmark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<CurvePoint>,
    /// Of a search with several aims the architectures that no other dominates; the derived one is the best of them in the
    /// metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub front: Option<Front>,
    /// How far to trust the architecture.
    #[serde(default, skip_serializing_if = "Trust::is_empty")]
    pub trust: Trust,
    /// Epochs done.
    pub epochs: u64,
    /// Steps done.
    pub steps: u64,
    /// Why the search ended.
    pub reason: String,
}

impl Outcome {
    /// What a reader should know before trusting the architecture: [`Trust::remarks`].
    pub fn remarks(&self) -> Vec<String> {
        self.trust.remarks(self.entropy, &self.genotype)
    }

    /// What makes the architecture doubtful: [`Trust::doubts`].
    pub fn doubts(&self) -> Vec<String> {
        self.trust.doubts(self.entropy, &self.genotype)
    }
}

/// A point of [`Outcome::curve`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Steps done.
    #[serde(default)]
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Training images that went through the supernet.
    #[serde(default)]
    pub images: u64,
    /// Seconds of search; only of runs with a budget of seconds, since no two runs have the same.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::lossless"
    )]
    pub seconds: Option<f64>,
    /// Simulated seconds of training; only of runs with a budget of them.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::lossless"
    )]
    pub simulated: Option<f64>,
    /// Whether the benchmark knows the architecture: what a model predicts it does not.
    pub known: bool,
    /// Those of the metrics that a model predicts: [`crate::benchmark::Score::predicted`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub predicted: BTreeMap<String, [f64; 2]>,
    /// The benchmark's metrics, where it does, and the strategy's own figures.
    #[serde(default, with = "crate::lossless")]
    pub metrics: Option<BTreeMap<String, f64>>,
    /// Optimum minus metric.
    #[serde(default, with = "crate::lossless")]
    pub regret: Option<BTreeMap<String, f64>>,
}
