//! The event stream: everything that a run has to say, as one serialisable enum. Progress bars, files and reports are
//! subscribers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arch::{Genotype, Group, Marginals};
use crate::budget::Budget;
use crate::trust::Trust;

/// A matrix to look at, row by row: feature maps and the like.
pub type Picture = Vec<Vec<f64>>;

/// Running means since the last [`Event::Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Meter {
    /// Mean loss.
    #[serde(with = "crate::lossless")]
    pub loss: f64,
    /// Fraction of images classified correctly.
    #[serde(with = "crate::lossless")]
    pub accuracy: f64,
    /// Fraction of images whose class is among the five best; only of evaluations, and only of more than five classes.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::lossless"
    )]
    pub top5: Option<f64>,
    /// Images that the means are over.
    #[serde(with = "crate::lossless")]
    pub images: f64,
}

/// Something that happened in a run. Steps and epochs count from zero; `step` is the number of steps done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The search begins or goes on.
    Started {
        /// Steps already done: 0 for a new run.
        step: u64,
        /// Planned epochs.
        epochs: u64,
        /// Steps of an epoch.
        steps_per_epoch: u64,
        /// What the search may spend; none where epochs decide.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<Budget>,
        /// Share of the planned search that is done, from 0 to 1.
        #[serde(default, with = "crate::lossless")]
        done: f64,
        /// Device in words.
        device: String,
        /// Number of trained supernet parameters.
        weights: i64,
        /// Number of architecture parameters.
        arch_params: i64,
        /// What is decided: names of rows and candidates, in the order of all marginals. Older runs lack it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<Group>,
    },
    /// Every few steps.
    Progress {
        /// Steps done.
        step: u64,
        /// Epoch of the last step.
        epoch: u64,
        /// Means per split (`full`, `train`, `val`).
        meters: BTreeMap<String, Meter>,
        /// Normalised entropy of the distribution: 1 uniform, 0 one-hot.
        #[serde(default, with = "crate::lossless")]
        entropy: Option<f64>,
        /// Learning rate of the weights.
        #[serde(with = "crate::lossless")]
        lr: f64,
        /// Named scalars of the strategy.
        #[serde(with = "crate::lossless")]
        scalars: BTreeMap<String, f64>,
        /// Share of the planned search that is done, from 0 to 1. Not reproducible with a budget of seconds.
        #[serde(default, with = "crate::lossless")]
        done: f64,
        /// Seconds of this process's work on the run so far. Not reproducible.
        #[serde(with = "crate::lossless")]
        seconds: f64,
    },
    /// The architecture before training (step 0), every few steps, and after every epoch.
    Architecture {
        /// Steps done.
        #[serde(default)]
        step: u64,
        /// Epochs done.
        epoch: u64,
        /// Training images that went through the supernet so far.
        #[serde(default)]
        images: u64,
        /// Seconds of search so far, over all processes. Not reproducible.
        #[serde(default, with = "crate::lossless")]
        seconds: f64,
        /// Simulated seconds of training so far.
        #[serde(default, with = "crate::lossless")]
        simulated: f64,
        /// The weights that derivation goes by.
        #[serde(default, with = "crate::lossless")]
        marginals: Option<Marginals>,
        /// Normalised entropy.
        #[serde(default, with = "crate::lossless")]
        entropy: Option<f64>,
        /// Mean over rows of the largest weight.
        #[serde(default, with = "crate::lossless")]
        sharpness: Option<f64>,
        /// What would be derived now.
        genotype: Genotype,
        /// The benchmark's metrics for it; none without a benchmark or where a partial table lacks it.
        #[serde(default, with = "crate::lossless")]
        metrics: Option<BTreeMap<String, f64>>,
        /// Optimum minus metric.
        #[serde(default, with = "crate::lossless")]
        regret: Option<BTreeMap<String, f64>>,
        /// Whether the benchmark knows the architecture; none without a benchmark, and where a model predicts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        known: Option<bool>,
        /// How far to trust it.
        #[serde(default, skip_serializing_if = "Trust::is_empty")]
        trust: Box<Trust>,
    },
    /// What a strategy shows of itself, before training and after every epoch.
    Pictures {
        /// Steps done.
        step: u64,
        /// Epochs done.
        epoch: u64,
        /// Matrices by name, row by row.
        #[serde(with = "crate::lossless")]
        pictures: BTreeMap<String, Picture>,
    },
    /// A command of the strategy was carried out.
    Control {
        /// Epochs done.
        epoch: u64,
        /// In words.
        what: String,
    },
    /// A checkpoint is safely on disk.
    Checkpoint {
        /// Steps done.
        step: u64,
    },
    /// A signal arrived; the run can be resumed.
    Interrupted {
        /// Steps done.
        step: u64,
    },
    /// The process ended with an error.
    Failed {
        /// Steps done.
        step: u64,
        /// The error in words.
        error: String,
    },
    /// The search is over.
    Finished {
        /// Steps done.
        step: u64,
        /// Why it ended: `epochs done`, or the strategy's reason.
        reason: String,
        /// Seconds of this process. Not reproducible.
        #[serde(with = "crate::lossless")]
        seconds: f64,
        /// Largest resident memory of this process in bytes, where the system tells. Not reproducible.
        peak_memory: Option<u64>,
    },
}

impl Event {
    /// The numbers that it says of a step, with the steps done: `loss/train`, `accuracy/val`, `top5/val`, `lr`, `entropy`,
    /// `strategy/NAME` of a [`Event::Progress`]; `architecture/entropy`, `architecture/sharpness`, `metrics/NAME`,
    /// `regret/NAME` of an [`Event::Architecture`], behind which `/predicted` stands where a model predicts the metric. Trackers
    /// call them so.
    pub fn scalars(&self) -> Option<(u64, Vec<(String, f64)>)> {
        let mut all = vec![];
        let mut add = |name: String, value: Option<f64>| all.extend(value.map(|v| (name, v)));
        let step = match self {
            Self::Progress {
                step,
                meters,
                entropy,
                lr,
                scalars,
                ..
            } => {
                for (split, meter) in meters {
                    add(format!("loss/{split}"), Some(meter.loss));
                    add(format!("accuracy/{split}"), Some(meter.accuracy));
                    add(format!("top5/{split}"), meter.top5);
                }
                add("lr".into(), Some(*lr));
                add("entropy".into(), *entropy);
                for (name, value) in scalars {
                    add(format!("strategy/{name}"), Some(*value));
                }
                step
            }
            Self::Architecture {
                step,
                entropy,
                sharpness,
                metrics,
                regret,
                trust,
                ..
            } => {
                let mark = |name: &str| match trust.is_predicted(name) {
                    true => format!("{name}/predicted"),
                    false => name.into(),
                };
                add("architecture/entropy".into(), *entropy);
                add("architecture/sharpness".into(), *sharpness);
                for (name, value) in metrics.iter().flatten() {
                    add(format!("metrics/{}", mark(name)), Some(*value));
                }
                for (name, value) in regret.iter().flatten() {
                    add(format!("regret/{}", mark(name)), Some(*value));
                }
                step
            }
            _ => return None,
        };
        Some((*step, all))
    }

    /// The epoch that it happened in or after, where it says so.
    pub fn epoch(&self) -> Option<u64> {
        match self {
            Self::Progress { epoch, .. }
            | Self::Architecture { epoch, .. }
            | Self::Pictures { epoch, .. }
            | Self::Control { epoch, .. } => Some(*epoch),
            _ => None,
        }
    }

    /// The event without what differs between equal runs: seconds and memory.
    pub fn reproducible(mut self) -> Self {
        match &mut self {
            Self::Progress { seconds, .. } | Self::Architecture { seconds, .. } => *seconds = 0.0,
            Self::Finished {
                seconds,
                peak_memory,
                ..
            } => (*seconds, *peak_memory) = (0.0, None),
            _ => {}
        }
        self
    }
}
