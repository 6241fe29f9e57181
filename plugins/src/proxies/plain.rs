//! Plain (Mozer and Smolensky 1989; Abdelfattah et al. 2021): as SNIP, with signs.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use super::{slopes, total};

/// Settings of `plain`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plain {}

register! {
    proxy "plain" => Plain,
    summary: "sum of w · ∂L/∂w, with its sign",
    source: "Mozer, Smolensky 1989, NIPS (skeletonization); as a score Abdelfattah et al. 2021, ICLR",
    defaults: "[proxy]\n",
    example: "nasfw score DARTS_V2 --proxy plain",
}

#[typetag::serde(name = "plain")]
impl Proxy for Plain {
    /// Σ w ∂L/∂w. The batch norms behind them make most layers' sums zero but for rounding: a scaled layer gives the same
    /// output (the sum is the derivative in the logarithm of the scale). What is left comes from layers without one, above
    /// all the classifier.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        let slopes = slopes(start)?;
        Ok(slopes.iter().map(|(w, g)| total(&(w * g))).sum())
    }
}
