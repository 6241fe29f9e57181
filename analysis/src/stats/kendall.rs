//! Kendall's rank correlation τ-b (Kendall 1945, Biometrika 33:239).

use statrs::distribution::{ContinuousCDF, Normal};

use super::ranks::tie_sizes;

/// Largest sample without ties for which the null distribution is enumerated (as in SciPy).
const EXACT: usize = 33;

/// Correlation and its two-sided p-value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Kendall {
    /// From −1, opposite orders, to 1, the same order.
    pub tau: f64,
    /// Exact without ties up to 33 pairs, else the normal approximation with ties.
    pub p: f64,
}

/// None of fewer than two pairs, of lists of unequal length, and where one of them does not vary.
pub fn kendall(x: &[f64], y: &[f64]) -> Option<Kendall> {
    let n = x.len();
    if n < 2 || y.len() != n {
        return None;
    }
    let (mut concordant, mut discordant) = (0_u64, 0_u64);
    for i in 0..n {
        for j in 0..i {
            let product = (x[i] - x[j]).signum() * (y[i] - y[j]).signum();
            if x[i] != x[j] && y[i] != y[j] {
                if product > 0.0 {
                    concordant += 1
                } else {
                    discordant += 1
                }
            }
        }
    }
    let pairs = (n * (n - 1) / 2) as f64;
    let (x, y) = (tie_sizes(x), tie_sizes(y));
    let tied = |ties: &[usize]| ties.iter().map(|t| (t * (t - 1) / 2) as f64).sum::<f64>();
    let (x_tied, y_tied) = (tied(&x), tied(&y));
    if x_tied == pairs || y_tied == pairs {
        return None;
    }
    let score = concordant as f64 - discordant as f64;
    let tau = score / (pairs - x_tied).sqrt() / (pairs - y_tied).sqrt();
    let p = if x_tied == 0.0 && y_tied == 0.0 && n <= EXACT {
        exact(n, concordant.min(discordant) as usize)
    } else {
        approximate(n as f64, score, &x, &y)
    };
    Some(Kendall {
        tau: tau.clamp(-1.0, 1.0),
        p,
    })
}

/// Twice the probability of at most `inversions` in a random permutation of `n`.
fn exact(n: usize, inversions: usize) -> f64 {
    let mut probability = vec![0.0; inversions + 1];
    probability[0] = 1.0;
    for j in 2..=n {
        let before = probability.clone();
        for (i, p) in probability.iter_mut().enumerate() {
            // Inserting the j-th element adds 0 to j − 1 inversions, all equally likely.
            let from = (i + 1).saturating_sub(j);
            *p = before[from..=i].iter().sum::<f64>() / j as f64;
        }
    }
    (2.0 * probability.iter().sum::<f64>()).min(1.0)
}

fn approximate(n: f64, score: f64, x: &[usize], y: &[usize]) -> f64 {
    let sum = |ties: &[usize], f: fn(f64) -> f64| ties.iter().map(|t| f(*t as f64)).sum::<f64>();
    let pairs = |t: f64| t * (t - 1.0) / 2.0;
    let cubes = |t: f64| t * (t - 1.0) * (t - 2.0);
    let weighted = |t: f64| t * (t - 1.0) * (2.0 * t + 5.0);
    let m = n * (n - 1.0);
    let variance = (m * (2.0 * n + 5.0) - sum(x, weighted) - sum(y, weighted)) / 18.0
        + 2.0 * sum(x, pairs) * sum(y, pairs) / m
        + if n > 2.0 {
            sum(x, cubes) * sum(y, cubes) / (9.0 * m * (n - 2.0))
        } else {
            0.0
        };
    2.0 * Normal::standard().sf((score / variance.sqrt()).abs())
}
