//! Mean, standard deviation and quantiles.

use statrs::statistics::{Data, OrderStatistics};

/// Arithmetic mean; none of no numbers.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Sample standard deviation, with n − 1 in the denominator; none of fewer than two numbers.
pub fn sample_sd(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|_| values.len() > 1)?;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// The value below which a share of the numbers lies, 0 to 1; none of no numbers, of such as are none, and of other shares.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let sound = !values.is_empty() && (0.0..=1.0).contains(&share);
    let sound = sound && values.iter().all(|v| !v.is_nan());
    sound.then(|| Data::new(values.to_vec()).quantile(share))
}
