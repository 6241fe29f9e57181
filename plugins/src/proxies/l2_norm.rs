//! Norm of the fresh weights (Abdelfattah et al. 2021's program; NAS-Bench-Suite-Zero).

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use super::total;

/// Settings of `l2-norm`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct L2Norm {}

register! {
    proxy "l2-norm" => L2Norm,
    summary: "sum over layers of the Euclidean norm of the weights, which the architecture decides but for chance",
    source: "program of Abdelfattah et al. 2021, ICLR; Krishnakumar et al. 2022, NeurIPS, arXiv:2210.03230",
    defaults: "[proxy]\n",
    example: "nasfw score DARTS_V2 --proxy l2-norm",
}

#[typetag::serde(name = "l2-norm")]
impl Proxy for L2Norm {
    /// Σ over layers of ‖W‖₂, layers that nothing depends on included. No image is looked at.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        let kernels = start.kernels(&start.weights().detach());
        Ok(kernels.iter().map(|w| total(&w.square()).sqrt()).sum())
    }
}
