//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// How a rate moves from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Half a cosine wave (Loshchilov & Hutter 2017, equation 5, without restarts).
    Cosine,
    /// A straight line.
    Linear,
    /// No change.
    Constant,
}

impl Shape {
    /// The value at `progress` from 0 (start) to 1 (end); beyond the end it stays.
    pub fn at(self, start: f64, end: f64, progress: f64) -> f64 {
        let t = progress.clamp(0.0, 1.0);
        match self {
            Self::Cosine => end + (start - end) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos()),
            Self::Linear => start + (end - start) * t,
            Self::Constant => start,
        }
    }
}
