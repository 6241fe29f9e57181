//! What a model is taught: normal scores, which no outlier and no ceiling bends, and the way back to values.

use nasfw_framework::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// The most points of a curve.
const POINTS: usize = 513;

/// A rising curve between normal scores and values through some of the values that are known: the score of a value is the
/// quantile of the standard normal distribution at its rank (Van der Waerden 1952). Straight between its points; beyond them
/// it stays where it is, so that no value is predicted that is above the best or below the worst known one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curve {
    /// Rising normal scores.
    scores: Vec<f64>,
    /// The value at each, rising.
    values: Vec<f64>,
}

impl Curve {
    /// The curve of values; none where all are the same.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn of(values: &[f64]) -> Result<Option<Self>> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        // Per value that occurs, the mean of its ranks from 0 to 1.
        let mut ranks: Vec<(f64, f64)> = vec![];
        let mut at = 0;
        for same in sorted.chunk_by(|a, b| a == b) {
            let middle = at as f64 + same.len() as f64 / 2.0;
            ranks.extend(same.first().map(|v| (middle / sorted.len() as f64, *v)));
            at += same.len();
        }
        if ranks.len() < 2 {
            return Ok(None);
        }
        let shares: Vec<f64> = ranks.iter().map(|r| r.0).collect();
        let scores = Tensor::from_slice(&shares).f_special_ndtri()?;
        let scores: Vec<f64> = Vec::try_from(&scores.to_kind(Kind::Double))?;
        let (first, last) = (scores[0], scores[scores.len() - 1]);
        let step = (last - first) / (POINTS - 1) as f64;
        let mut curve = Self {
            scores: vec![],
            values: vec![],
        };
        let final_one = ranks.len() - 1;
        for (i, (score, (_, value))) in scores.into_iter().zip(ranks).enumerate() {
            let due = curve
                .scores
                .last()
                .is_none_or(|before| score - before >= step);
            if due || i == final_one {
                curve.scores.push(score);
                curve.values.push(value);
            }
        }
        Ok(Some(curve))
    }

    /// The normal score of a value.
    pub fn score(&self, value: f64) -> f64 {
        between(&self.values, &self.scores, value)
    }

    /// The value at a normal score.
    pub fn value(&self, score: f64) -> f64 {
        between(&self.scores, &self.values, score)
    }

    /// Checks what was read from a file.
    ///
    /// # Errors
    /// A curve that does not rise.
    pub fn check(&self) -> Result<()> {
        let rises =
            |v: &[f64]| v.windows(2).all(|w| w[0] < w[1]) && v.iter().all(|x| x.is_finite());
        let good = self.scores.len() == self.values.len() && self.scores.len() >= 2;
        match good && rises(&self.scores) && rises(&self.values) {
            true => Ok(()),
            false => Err(Error::Invalid {
                what: "curve".into(),
                why: "it does not rise".into(),
            }),
        }
    }
}

/// y at x on the straight lines through points whose x rise; constant beyond them.
fn between(xs: &[f64], ys: &[f64], x: f64) -> f64 {
    let above = xs.partition_point(|p| *p <= x);
    let point = |i: usize| Some((*xs.get(i)?, *ys.get(i)?));
    match (above.checked_sub(1).and_then(point), point(above)) {
        (Some((x0, y0)), Some((x1, y1))) => y0 + (y1 - y0) * (x - x0) / (x1 - x0),
        (Some((_, y)), None) | (None, Some((_, y))) => y,
        (None, None) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_curve_rises_through_what_is_known_and_no_further() {
        let values: Vec<f64> = (0..5000).map(|i| (f64::from(i) / 700.0).exp()).collect();
        let curve = Curve::of(&values).unwrap().unwrap();
        curve.check().unwrap();
        assert!(curve.scores.len() <= POINTS);
        assert!(curve.score(values[2500]).abs() < 1e-2);
        for v in [values[0], values[7], values[2500], values[4999]] {
            assert!((curve.value(curve.score(v)) / v - 1.0).abs() < 1e-9);
        }
        assert_eq!(curve.value(99.0), values[4999]);
        assert_eq!(curve.value(-99.0), values[0]);
        assert_eq!(Curve::of(&[3.0; 9]).unwrap(), None);
        // Equal values share their score: of four, the middle of the first three is at 3/8.
        let tied = Curve::of(&[1.0, 1.0, 1.0, 2.0]).unwrap().unwrap();
        assert!((tied.score(1.0) + 0.318_639_364).abs() < 1e-6);
    }
}
