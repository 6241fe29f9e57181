//! The settings of VIM-NAS: what the paper leaves open, and what its ablations change.

use nasfw_framework::prelude::*;
use serde::{Deserialize, Serialize};

/// Settings of VIM-NAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VimConfig {
    /// Whether θ and φ share a backward pass.
    pub level: Level,
    /// Which images to learn from.
    pub data: Data,
    /// Monte Carlo samples of A per step.
    pub samples: usize,
    /// Parts into which a batch is cut, each with samples of A of its own.
    pub parts: i64,
    /// Share of the search in which θ moves alone.
    pub warmup: f64,
    /// The noise that makes A from φ(ε).
    pub form: Form,
    /// Standard deviation of ξ on generated groups.
    pub noise: f64,
    /// τ of softmax(A / τ) until φ moves.
    pub temperature: f64,
    /// τ at the end of the search.
    pub temperature_end: f64,
    /// Whether ε is drawn once or for every sample.
    pub input: Input,
    /// Generators for all groups together or for each.
    pub generators: Generators,
    /// How groups of operations get their logits.
    pub operations: Logits,
    /// How topology groups get their logits.
    pub topology: Logits,
    /// Standard deviation of ξ on free topology groups.
    pub topology_noise: f64,
    /// τ of free topology groups until φ moves.
    #[serde(default = "one")]
    pub topology_temperature: f64,
    /// τ of free topology groups at the end of the search.
    #[serde(default = "one")]
    pub topology_temperature_end: f64,
    /// Free topology logits are so many times their parameters: by Adam, they move so many times as fast.
    #[serde(default = "one")]
    pub topology_rate: f64,
    /// Rows that keep k candidates have weights that sum to k, the probabilities of subsets of k, and not to one.
    #[serde(default)]
    pub k_hot: bool,
    /// Standard deviation of free logits at the start.
    pub free_init_std: f64,
    /// Conv-ReLU-BN blocks of the generator.
    pub blocks: usize,
    /// Channels between blocks.
    pub width: i64,
    /// ReLU in the last block.
    pub last_relu: bool,
    /// Scale of the last batch norm at the start.
    pub gamma: f64,
    /// Optimizer of φ.
    pub arch: OptimizerConfig,
}

/// What runs did that were begun before topology had a rate and a temperature.
fn one() -> f64 {
    1.0
}

/// Whether θ and φ share a backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// One loss, one backward pass, both descend.
    Joint,
    /// θ first, then φ at the new θ with a loss of its own.
    Alternating,
}

/// Which images to learn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// All training images.
    Full,
    /// Joint: the first half. Alternating: the first half for θ, the second for φ.
    Halves,
}

/// The noise that makes A from φ(ε).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A = φ(ε) + σξ.
    Sample,
    /// A = φ(ε): the point estimate of the ablation P.
    Point,
    /// A = φ(ε) (1 + √a ξ) with learned a: the variational dropout of the ablation D.
    Dropout,
}

/// Whether ε is drawn once or for every sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// Drawn once, an input of Algorithm 1.
    Fixed,
    /// Drawn for every sample; derivation goes by the first draw.
    Resampled,
}

/// Generators for all groups together or for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Generators {
    /// One φ for all groups; groups of one shape are a batch.
    One,
    /// One φ per group.
    PerGroup,
}

/// How a group gets its logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Logits {
    /// Parameters of their own, independent of each other: the topology of NAS-Bench-1Shot1's own code, DARTS's
    /// operations.
    Free,
    /// By the generator.
    Generated,
}
