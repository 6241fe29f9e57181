//! Number of parameters.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

/// Settings of `params`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {}

register! {
    cost "params" => Params,
    summary: "trained parameters, without an auxiliary classifier's",
    source: "Liu et al. 2019, ICLR (as a measure)",
    defaults: "[cost]\n",
    example: "nasfw run --strategy darts --space nasbench201 --limit params=0.8M",
}

#[typetag::serde(name = "params")]
impl Cost for Params {
    fn unit(&self) -> Unit {
        Unit::Count
    }

    fn of(&self, network: &Network) -> Result<f64> {
        Ok(network.size().params as f64)
    }
}
