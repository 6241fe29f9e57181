//! Wilcoxon's signed-rank test (Wilcoxon 1945, Biometrics Bulletin 1:80), paired and two-sided.

use statrs::distribution::{ContinuousCDF, Normal};

use super::ranks::{ranks, tie_sizes};

/// Largest number of differing pairs for which the null distribution is enumerated.
const EXACT: usize = 50;

/// Result of the test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wilcoxon {
    /// Sum of the ranks of positive differences.
    pub positive: f64,
    /// Sum of the ranks of negative differences.
    pub negative: f64,
    /// Pairs that differ; the others are left out.
    pub n: usize,
    /// Two-sided p-value; 1 where no pair differs.
    pub p: f64,
}

/// Tests whether differences are symmetric about zero.
///
/// Zero differences are left out (Wilcoxon's own rule, SciPy's `zero_method='wilcox'`). Up to 50 of the others the
/// distribution over all assignments of signs is exact, with tied ranks as they are: where nothing is tied this is
/// SciPy's `method='exact'`, with ties its `PermutationMethod` over all assignments. Beyond, it is the normal
/// approximation with the correction for ties and none for continuity (SciPy's `method='asymptotic'`).
pub fn wilcoxon(differences: &[f64]) -> Wilcoxon {
    let differ: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    let sizes: Vec<f64> = differ.iter().map(|d| d.abs()).collect();
    let ranks = ranks(&sizes);
    let side = |sign: f64| -> f64 {
        let on_side = differ.iter().zip(&ranks).filter(|(d, _)| **d * sign > 0.0);
        on_side.map(|(_, r)| r).sum()
    };
    let (positive, negative) = (side(1.0), side(-1.0));
    let n = differ.len();
    let p = if n == 0 {
        1.0
    } else if n <= EXACT {
        exact(&ranks, positive.min(negative))
    } else {
        approximate(n as f64, &tie_sizes(&sizes), positive)
    };
    Wilcoxon {
        positive,
        negative,
        n,
        p,
    }
}

/// Twice the probability of a rank sum of at most `statistic` when every sign is a fair coin.
fn exact(ranks: &[f64], statistic: f64) -> f64 {
    // Mean ranks are halves, so doubled ranks are whole numbers.
    let doubled: Vec<usize> = ranks.iter().map(|r| (2.0 * r) as usize).collect();
    let limit = (2.0 * statistic) as usize;
    let mut probability = vec![0.0; limit + 1];
    probability[0] = 1.0;
    for rank in doubled {
        for sum in (0..=limit).rev() {
            let with = if sum >= rank {
                probability[sum - rank]
            } else {
                0.0
            };
            probability[sum] = (probability[sum] + with) / 2.0;
        }
    }
    (2.0 * probability.iter().sum::<f64>()).min(1.0)
}

fn approximate(n: f64, ties: &[usize], positive: f64) -> f64 {
    let correction: f64 = ties.iter().map(|t| (t * t * t - t) as f64).sum();
    let variance = (n * (n + 1.0) * (2.0 * n + 1.0) - correction / 2.0) / 24.0;
    let z = (positive - n * (n + 1.0) / 4.0) / variance.sqrt();
    2.0 * Normal::standard().sf(z.abs())
}

/// The smallest p-value that `n` differing pairs can give: 2 / 2ⁿ. With 5 it is 0.0625, so a level of 0.05 needs 6.
pub fn smallest_p(n: usize) -> f64 {
    (2.0 * 0.5_f64.powi(i32::try_from(n).unwrap_or(i32::MAX))).min(1.0)
}
