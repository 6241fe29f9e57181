//! Friedman's test (Friedman 1937, JASA 32:675): do treatments differ over blocks?

use statrs::distribution::{ChiSquared, ContinuousCDF};

use super::ranks::{ranks, tie_sizes};

/// Result of the test.
#[derive(Debug, Clone, PartialEq)]
pub struct Friedman {
    /// Average rank of every treatment; rank 1 is the largest value.
    pub average: Vec<f64>,
    /// χ² with (treatments − 1) degrees of freedom, corrected for ties; 0 where everything is tied.
    pub chi_squared: f64,
    /// P-value of the χ² approximation.
    pub p: f64,
}

/// `blocks × treatments`, higher is better. None with fewer than two treatments, no block, or blocks of unequal length.
pub fn friedman(blocks: &[Vec<f64>]) -> Option<Friedman> {
    let (n, k) = (blocks.len(), blocks.first()?.len());
    if k < 2 || blocks.iter().any(|b| b.len() != k) {
        return None;
    }
    let mut sums = vec![0.0; k];
    let mut ties = 0.0;
    for block in blocks {
        let turned: Vec<f64> = block.iter().map(|v| -v).collect();
        sums.iter_mut()
            .zip(ranks(&turned))
            .for_each(|(s, r)| *s += r);
        ties += tie_sizes(block)
            .iter()
            .map(|t| (t * t * t - t) as f64)
            .sum::<f64>();
    }
    let (nf, kf) = (n as f64, k as f64);
    let squares: f64 = sums.iter().map(|s| s * s).sum();
    let plain = 12.0 / (nf * kf * (kf + 1.0)) * squares - 3.0 * nf * (kf + 1.0);
    let untied = 1.0 - ties / (nf * kf * (kf * kf - 1.0));
    let chi_squared = if untied > 0.0 {
        (plain / untied).max(0.0)
    } else {
        0.0
    };
    Some(Friedman {
        average: sums.iter().map(|s| s / nf).collect(),
        chi_squared,
        p: ChiSquared::new(kf - 1.0).map_or(1.0, |d| d.sf(chi_squared)),
    })
}
