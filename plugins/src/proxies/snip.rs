//! SNIP (Lee et al. 2019): how much the loss would change, to first order, if single weights were cut.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use super::{slopes, total};

/// Settings of `snip`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snip {}

register! {
    proxy "snip" => Snip,
    summary: "sum of the absolute values of w · ∂L/∂w: connection sensitivity",
    source: "Lee, Ajanthan, Torr 2019, ICLR, arXiv:1810.02340; as a score Abdelfattah et al. 2021, ICLR",
    defaults: "[proxy]\n",
    example: "nasfw score DARTS_V2 --proxy snip",
}

#[typetag::serde(name = "snip")]
impl Proxy for Snip {
    /// Σ |w ∂L/∂w|. The paper divides by the sum over the network, which a score of the whole network can't.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        let slopes = slopes(start)?;
        Ok(slopes.iter().map(|(w, g)| total(&(w * g).abs())).sum())
    }
}
