//! Number of parameters: the baseline that a proxy must beat.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

/// Settings of `params`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {}

register! {
    proxy "params" => Params,
    summary: "millions of parameters, without an auxiliary classifier's",
    source: "Ning et al. 2021, NeurIPS; Krishnakumar et al. 2022, NeurIPS, arXiv:2210.03230 (as a baseline)",
    defaults: "[proxy]\n",
    example: "nasfw score DARTS_V2 --proxy params",
}

#[typetag::serde(name = "params")]
impl Proxy for Params {
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        Ok(start.network().size().params as f64 / 1e6)
    }
}
