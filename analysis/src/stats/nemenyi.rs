//! Nemenyi's critical difference of average ranks (Demšar 2006, JMLR 7:1).

use statrs::distribution::{Continuous, ContinuousCDF, Normal};

/// Average ranks of `treatments` over `blocks` that are further apart than this differ at the level: q √(k(k+1) / 6n),
/// where q is the quantile of the studentized range with infinitely many degrees of freedom over √2. None with fewer
/// than two treatments, without blocks, or for a level outside (0, 1).
pub fn critical_difference(treatments: usize, blocks: usize, level: f64) -> Option<f64> {
    if blocks == 0 {
        return None;
    }
    let q = studentized_range_quantile(treatments, level)? / 2_f64.sqrt();
    let (k, n) = (treatments as f64, blocks as f64);
    Some(q * (k * (k + 1.0) / (6.0 * n)).sqrt())
}

/// The value that the range of `k` standard normal numbers exceeds with probability `level`. None for k < 2 or a level
/// outside (0, 1).
pub fn studentized_range_quantile(k: usize, level: f64) -> Option<f64> {
    if k < 2 || !(level > 0.0 && level < 1.0) {
        return None;
    }
    let (mut low, mut high) = (0.0, 100.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if range_cdf(k, middle) < 1.0 - level {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some((low + high) / 2.0)
}

/// P(range ≤ q) = k ∫ φ(z) (Φ(z) − Φ(z − q))^(k−1) dz: z is the largest number and the others lie within q below it.
/// By the trapezoidal rule, which is exact to rounding for integrands that vanish so smoothly at both ends.
fn range_cdf(k: usize, q: f64) -> f64 {
    let normal = Normal::standard();
    let (from, steps) = (-10.0, 400);
    let width = 20.0 / f64::from(steps);
    let others = i32::try_from(k - 1).unwrap_or(i32::MAX);
    let at = |i: i32| {
        let z = from + width * f64::from(i);
        normal.pdf(z) * (normal.cdf(z) - normal.cdf(z - q)).powi(others)
    };
    k as f64 * width * (0..=steps).map(at).sum::<f64>()
}
