//! Bootstrap intervals of a mean: bias-corrected and accelerated (Efron 1987, JASA 82:171), as SciPy's
//! `bootstrap(method='BCa')` computes them.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{ContinuousCDF, Normal};

use super::describe::mean;

/// Resamples of n measurements, drawn once and used for everything that is measured on the same n seeds.
///
/// Intervals from few measurements are too narrow: with 5 a nominal 95 % interval of a mean covers it in about 85 % of
/// cases, with 20 in about 93 %. Tests, not intervals, decide in a comparison.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    n: usize,
    /// `resamples × n` indices.
    draws: Vec<u32>,
}

impl Bootstrap {
    /// Draws `resamples` resamples of `n` indices.
    pub fn new(n: usize, resamples: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let draws = (0..if n == 0 { 0 } else { n * resamples })
            .map(|_| rng.random_range(0..n as u32))
            .collect();
        Self { n, draws }
    }

    /// Interval of the mean at a confidence in (0, 1); none of fewer than two values, or of another number of values
    /// than was drawn for.
    pub fn interval(&self, values: &[f64], confidence: f64) -> Option<[f64; 2]> {
        if values.len() != self.n || self.n < 2 {
            return None;
        }
        let mut resampled: Vec<f64> = self
            .draws
            .chunks_exact(self.n)
            .map(|draw| draw.iter().map(|i| values[*i as usize]).sum::<f64>() / self.n as f64)
            .collect();
        bca(values, &mut resampled, confidence)
    }
}

/// The BCa interval of the mean of `values`, given the means of resamples, which it sorts. Where all values are equal,
/// so are the ends. None of fewer than two values or no resamples.
pub fn bca(values: &[f64], resampled: &mut [f64], confidence: f64) -> Option<[f64; 2]> {
    let n = values.len();
    let centre = mean(values).filter(|_| n > 1 && !resampled.is_empty())?;
    if values.iter().all(|v| *v == values[0]) {
        return Some([values[0]; 2]);
    }
    resampled.sort_by(f64::total_cmp);
    let count = resampled.len() as f64;
    let below = resampled.partition_point(|r| *r < centre) as f64;
    let up_to = resampled.partition_point(|r| *r <= centre) as f64;
    let normal = Normal::standard();
    let bias = normal.inverse_cdf((below + up_to) / (2.0 * count));

    // Means without one value each (jackknife) minus their mean.
    let moved = |v: &f64| (v - centre) / (n - 1) as f64;
    let (squares, cubes) = values
        .iter()
        .map(moved)
        .fold((0.0, 0.0), |(s, c), d| (s + d * d, c + d.powi(3)));
    let acceleration = cubes / (6.0 * f64::powf(squares, 1.5));
    let end = |z: f64| {
        let z = bias + z;
        let p = normal.cdf(bias + z / (1.0 - acceleration * z));
        quantile(resampled, p)
    };
    let z = normal.inverse_cdf((1.0 - confidence) / 2.0);
    Some([end(z), end(-z)])
}

/// Quantile of sorted values with linear interpolation (NumPy's default).
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = p.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, share) = (at.floor() as usize, at.fract());
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (sorted[high] - sorted[low]) * share
}
