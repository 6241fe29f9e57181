//! Effect sizes of paired measurements.

use super::describe::{mean, sample_sd};
use super::wilcoxon::wilcoxon;

/// Matched-pairs rank-biserial correlation (Kerby 2014, Comprehensive Psychology 3:11.IT.3.1): the share of the ranks of
/// positive differences minus that of negative ones, from −1 to 1; 0 where no pair differs.
pub fn rank_biserial(differences: &[f64]) -> f64 {
    let test = wilcoxon(differences);
    let all = test.positive + test.negative;
    if all == 0.0 {
        0.0
    } else {
        (test.positive - test.negative) / all
    }
}

/// Cohen's d_z (Lakens 2013, Frontiers in Psychology 4:863): mean of the differences over their sample standard
/// deviation; none of fewer than two, and none where they do not vary.
pub fn cohen_dz(differences: &[f64]) -> Option<f64> {
    let sd = sample_sd(differences).filter(|sd| *sd > 0.0)?;
    Some(mean(differences)? / sd)
}
