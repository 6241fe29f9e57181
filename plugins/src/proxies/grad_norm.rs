//! Gradient norm (Abdelfattah et al. 2021).

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use super::{slopes, total};

/// Settings of `grad-norm`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradNorm {}

register! {
    proxy "grad-norm" => GradNorm,
    summary: "sum over layers of the Euclidean norm of the loss's gradient",
    source: "Abdelfattah, Mehrotra, Dudziak, Lane 2021, ICLR, arXiv:2101.08134",
    defaults: "[proxy]\n",
    example: "nasfw score DARTS_V2 --proxy grad-norm",
}

#[typetag::serde(name = "grad-norm")]
impl Proxy for GradNorm {
    /// Σ over layers of ‖∂L/∂W‖₂. The paper speaks of the sum of norms of "the gradients"; which is meant, layers', is the
    /// program's.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        let slopes = slopes(start)?;
        Ok(slopes.iter().map(|(_, g)| total(&g.square()).sqrt()).sum())
    }
}
