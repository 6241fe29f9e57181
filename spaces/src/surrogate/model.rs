//! What predicts: an ensemble of small networks on counted features, and intervals that were measured.

use std::sync::{Mutex, PoisonError};

use nasfw_framework::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::features::Features;
use super::network::{Bag, Bags, Net};
use super::target::Curve;

/// Shares of what is measured that intervals are to hold.
pub const LEVELS: [f64; 3] = [0.5, 0.8, 0.95];

/// Less than this is no part of a rank: 200 × (1 − 0.8) / 2 is not quite 20.
const ROUNDING: f64 = 1e-6;

/// What is predicted of an architecture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The middle: what is measured is as likely above as below.
    pub value: f64,
    /// For every one of [`LEVELS`], the ends of the interval that holds what is measured with that probability.
    pub intervals: [[f64; 2]; LEVELS.len()],
}

/// The features that networks know, in the order of their numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// Names, rising.
    pub names: Vec<u64>,
    /// What the amount of each is multiplied by.
    pub scales: Vec<f32>,
}

impl Vocabulary {
    /// Those features of an architecture that are known.
    pub fn bag(&self, features: &Features) -> Bag {
        let known = features.iter().filter_map(|(name, amount)| {
            let at = self.names.binary_search(name).ok()?;
            Some((at as i64, *amount as f32 * self.scales.get(at)?))
        });
        known.collect()
    }
}

/// A normal distribution of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normal {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

impl Normal {
    /// The mixture of what several networks say, by its first two moments: their mean variance and the variance of their
    /// means (Lakshminarayanan et al. 2017, NeurIPS, deep ensembles).
    pub fn mixture(parts: &[(f64, f64)]) -> Self {
        let n = parts.len().max(1) as f64;
        let mean = parts.iter().map(|p| p.0).sum::<f64>() / n;
        let within = parts.iter().map(|p| p.1).sum::<f64>() / n;
        let apart = parts.iter().map(|p| (p.0 - mean).powi(2)).sum::<f64>();
        let variance = within + apart / (n - 1.0).max(1.0);
        Self {
            mean,
            std: variance.sqrt(),
        }
    }
}

/// How far measured scores lay from predicted ones, in predicted standard deviations: for every one of [`LEVELS`] the ends of
/// the interval that held this share of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Calibration([[f64; 2]; LEVELS.len()]);

impl Calibration {
    /// From distances (measured − predicted) / standard deviation of rows that the networks had not seen: conformal
    /// prediction (Vovk et al. 2005; Lei et al. 2018), so that of n rows ⌈(n + 1)(1 + level)/2⌉ decide where an interval
    /// ends.
    pub fn of(mut distances: Vec<f64>) -> Self {
        distances.sort_unstable_by(f64::total_cmp);
        let n = distances.len();
        let at = |rank: f64| {
            let rank = (rank as usize).clamp(1, n.max(1));
            distances.get(rank - 1).copied().unwrap_or_default()
        };
        Self(LEVELS.map(|level| {
            let (outside, all) = ((1.0 - level) / 2.0, n as f64 + 1.0);
            [
                at((all * outside + ROUNDING).floor()),
                at((all * (1.0 - outside) - ROUNDING).ceil()),
            ]
        }))
    }

    /// Whether every interval is in the right order and all are finite.
    pub fn is_sound(&self) -> bool {
        self.0
            .iter()
            .all(|[low, high]| low <= high && low.is_finite() && high.is_finite())
    }

    /// What scores mean for values.
    pub fn predict(&self, normal: Normal, curve: &Curve) -> Prediction {
        let at = |distance: f64| curve.value(normal.mean + distance * normal.std);
        Prediction {
            value: at(0.0),
            intervals: self.0.map(|ends| ends.map(at)),
        }
    }
}

/// All of it.
#[derive(Debug)]
pub struct Model {
    /// What the networks know.
    pub vocabulary: Vocabulary,
    /// How they compute.
    pub net: Net,
    /// Flat parameters of each. Tensors are not to be shared between threads.
    pub members: Mutex<Vec<Tensor>>,
    /// Between their scores and values.
    pub curve: Curve,
    /// How their distances are to be read.
    pub calibration: Calibration,
}

impl Model {
    /// What is predicted of an architecture with these features. The same for the same features, to the last bit.
    ///
    /// # Errors
    /// A model that gives no number.
    pub fn predict(&self, features: &Features) -> Result<Prediction> {
        let bags = Bags::new([&self.vocabulary.bag(features)]);
        let mut parts = vec![];
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for member in members.iter() {
            parts.extend(self.net.predict(member, &bags)?);
        }
        let normal = Normal::mixture(&parts);
        if !(normal.mean.is_finite() && normal.std.is_finite()) {
            return Err(Error::Invalid {
                what: "surrogate".into(),
                why: "it predicts no number".into(),
            });
        }
        Ok(self.calibration.predict(normal, &self.curve))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mixture_is_as_wide_as_its_parts_and_as_far_as_they_are_apart() {
        let Normal { mean, std } = Normal::mixture(&[(1.0, 4.0), (3.0, 2.0)]);
        assert_eq!((mean, std), (2.0, (3.0_f64 + 2.0).sqrt()));
        assert_eq!(
            Normal::mixture(&[(1.0, 4.0)]),
            Normal {
                mean: 1.0,
                std: 2.0
            }
        );
    }

    #[test]
    fn calibration_takes_the_ranks_that_conformal_prediction_asks_for() {
        let distances: Vec<f64> = (1..=199).rev().map(f64::from).collect();
        let Calibration(ends) = Calibration::of(distances);
        assert_eq!(ends, [[50.0, 150.0], [20.0, 180.0], [5.0, 195.0]]);
        assert!(Calibration::of(vec![]).is_sound());
    }
}
