//! Holm's correction for several tests (Holm 1979, Scandinavian Journal of Statistics 6:65): the probability of any
//! false alarm in the family stays within the level, however the tests depend on each other.

/// Adjusted p-values, in the order given.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut largest = 0.0_f64;
    for (done, i) in order.into_iter().enumerate() {
        largest = largest.max(p[i] * (p.len() - done) as f64).min(1.0);
        adjusted[i] = largest;
    }
    adjusted
}
