//! From sums of pieces to whole networks, and how far such a prediction is off.

use std::fmt;

use nasfw_analysis::stats::{kendall, mean, quantile};
use nasfw_framework::printable::counted;

/// Seconds of a network: those of its pieces times a slope, and what it takes once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub slope: f64,
    pub once: f64,
}

impl Line {
    /// The line through sums and what networks took by Theil and Sen, medians of slopes and of distances, which a few
    /// disturbed measurements don't move. Its slope is above zero, and it takes no time back.
    pub fn through(points: &[(f64, f64)]) -> Self {
        let median = |values: Vec<f64>| quantile(&values, 0.5);
        let pairs = points.iter().enumerate();
        let slopes = pairs.flat_map(|(i, a)| {
            let others = points[..i].iter().filter(|b| b.0 != a.0);
            others.map(|b| (a.1 - b.1) / (a.0 - b.0))
        });
        let slope = median(slopes.collect());
        let once =
            slope.and_then(|slope| median(points.iter().map(|p| p.1 - slope * p.0).collect()));
        match (slope, once) {
            (Some(slope), Some(once)) if slope > 0.0 && once >= 0.0 => Self { slope, once },
            // Through zero.
            _ => Self {
                slope: median(points.iter().map(|p| p.1 / p.0).collect()).unwrap_or(1.0),
                once: 0.0,
            },
        }
    }
}

/// Predictions beside what networks took.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub networks: usize,
    /// Kendall's τ; none where all are the same.
    pub tau: Option<f64>,
    /// Mean of |predicted / measured − 1|.
    pub mean_error: f64,
    pub largest_error: f64,
    /// Seconds.
    pub measured: Vec<f64>,
    /// Seconds.
    pub predicted: Vec<f64>,
}

impl Check {
    /// Of pairs of what was predicted and what was measured.
    pub fn of(points: &[(f64, f64)]) -> Self {
        let (predicted, measured): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
        let errors: Vec<f64> = points.iter().map(|(p, m)| (p / m - 1.0).abs()).collect();
        Self {
            networks: points.len(),
            tau: kendall(&measured, &predicted).map(|k| k.tau),
            mean_error: mean(&errors).unwrap_or(f64::NAN),
            largest_error: errors.iter().copied().fold(0.0, f64::max),
            measured,
            predicted,
        }
    }

    /// Seconds of a typical network.
    pub fn median(&self) -> f64 {
        quantile(&self.measured, 0.5).unwrap_or_default()
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.networks == 0 {
            return write!(f, "nothing is known of how far it is off");
        }
        write!(
            f,
            "{}: ",
            counted(self.networks as u64, "other random network")
        )?;
        if let Some(tau) = self.tau {
            write!(f, "Kendall's τ {tau:.2}, ")?;
        }
        write!(
            f,
            "mean error {:.1} %, at most {:.1} %",
            100.0 * self.mean_error,
            100.0 * self.largest_error
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Points on a line give that line, also where a quarter of them is disturbed.
        #[test]
        fn lines_are_found(slope in 0.1f64..3.0, once in 0.0f64..2.0, disturbed in prop::collection::vec(0.0f64..50.0, 5)) {
            let at = |i: usize| (i as f64 + 1.0, slope * (i as f64 + 1.0) + once);
            let mut points: Vec<_> = (0..20).map(at).collect();
            for (place, more) in disturbed.iter().enumerate() {
                points[(place * 7) % 20].1 += more;
            }
            let exact: Vec<_> = (0..20).map(at).collect();
            let line = Line::through(&exact);
            prop_assert!((line.slope - slope).abs() < 1e-9 && (line.once - once).abs() < 1e-9);
            let line = Line::through(&points);
            prop_assert!(line.slope > 0.0 && line.once >= 0.0);
            let far = |l: Line| exact.iter().map(|(x, y)| (l.slope * x + l.once - y).abs()).fold(0.0, f64::max);
            // Nothing that a disturbance of 50 does to a line of least squares.
            prop_assert!(far(line) < 5.0, "{line:?}");
        }
    }

    /// A network can't take time back, however it looks.
    #[test]
    fn lines_rise_from_zero_or_above() {
        let line = Line::through(&[(1.0, 1.0), (2.0, 4.0), (3.0, 9.0)]);
        assert_eq!(
            line,
            Line {
                slope: 2.0,
                once: 0.0
            }
        );
        let line = Line::through(&[(1.0, 3.0), (2.0, 1.0)]);
        assert!(line.slope > 0.0 && line.once == 0.0);
        assert_eq!(
            Line::through(&[]),
            Line {
                slope: 1.0,
                once: 0.0
            }
        );
    }

    #[test]
    fn errors_are_relative() {
        let check = Check::of(&[(1.1, 1.0), (1.8, 2.0), (3.0, 3.0)]);
        assert!((check.mean_error - 0.2 / 3.0).abs() < 1e-12);
        assert!((check.largest_error - 0.1).abs() < 1e-12);
        assert_eq!(check.tau, Some(1.0));
        assert_eq!(check.median(), 2.0);
    }
}
