//! Spearman's rank correlation ρ (Spearman 1904, American Journal of Psychology 15:72).

use super::ranks::ranks;

/// The correlation of ranks, equal values sharing the mean of theirs. None of fewer than two pairs, of lists of unequal
/// length, and where one of them does not vary.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() < 2 || y.len() != x.len() {
        return None;
    }
    let middle = (x.len() as f64 + 1.0) / 2.0;
    let centred = |values| ranks(values).into_iter().map(|rank| rank - middle);
    let (x, y): (Vec<f64>, Vec<f64>) = (centred(x).collect(), centred(y).collect());
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale = (product(&x, &x) * product(&y, &y)).sqrt();
    (scale > 0.0).then(|| (product(&x, &y) / scale).clamp(-1.0, 1.0))
}
