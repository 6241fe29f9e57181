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
    /// A straight line that reaches its end 5 epochs early but for a last, flatter piece: the published retraining on
    /// ImageNet of P-DARTS and PC-DARTS (Xu et al. 2020, `adjust_lr`).
    #[serde(rename = "linear-tail")]
    LinearTail,
    /// The same factor at every step of the way.
    Exponential,
    /// No change.
    Constant,
}

impl Shape {
    /// The value at `progress` from 0 (start) to 1 (end); beyond the end it stays.
    pub fn at(self, start: f64, end: f64, progress: f64) -> f64 {
        let t = progress.clamp(0.0, 1.0);
        match self {
            Self::Cosine => end + (start - end) * 0.5 * (1.0 + (std::f64::consts::PI * t).cos()),
            Self::Linear | Self::LinearTail => start + (end - start) * t,
            Self::Exponential if start > 0.0 && end > 0.0 => start * (end / start).powf(t),
            // No factor leads from or to zero.
            Self::Exponential => start,
            Self::Constant => start,
        }
    }

    /// The value at `epoch` of `epochs`. The tail of [`Shape::LinearTail`] is known here only, since it is five epochs
    /// long whatever their number.
    pub fn over(self, start: f64, end: f64, epoch: f64, epochs: f64) -> f64 {
        const TAIL: f64 = 5.0;
        let left = epochs - epoch;
        match self {
            Self::LinearTail if epochs > TAIL => {
                let share = if left > TAIL {
                    left - TAIL
                } else {
                    left.max(0.0) / TAIL
                };
                end + (start - end) * share / (epochs - TAIL)
            }
            _ => self.at(start, end, epoch / epochs.max(1.0)),
        }
    }
}
