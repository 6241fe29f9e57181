//! Number of multiply-adds: the other baseline that a proxy must beat.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

/// Settings of `flops`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flops {}

register! {
    proxy "flops" => Flops,
    summary: "millions of multiply-adds of one image through convolutions and linear layers",
    source: "Ning et al. 2021, NeurIPS; Krishnakumar et al. 2022, NeurIPS, arXiv:2210.03230 (as a baseline)",
    defaults: "[proxy]\n",
    example: "nasfw score DARTS_V2 --proxy flops",
}

#[typetag::serde(name = "flops")]
impl Proxy for Flops {
    /// As this program counts everywhere. NAS-Bench-Suite-Zero's counter adds batch norms, ReLUs and poolings.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        Ok(start.network().size().macs as f64 / 1e6)
    }
}
