//! Memory of activations.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

/// Settings of `memory`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {}

register! {
    cost "memory" => Memory,
    summary: "bytes of intermediate values that one image needs at once, in 32-bit numbers",
    source: "Lin et al. 2020, NeurIPS (MCUNet), arXiv:2007.10319 (as a limit)",
    defaults: "[cost]\n",
    example: "nasfw run --strategy darts --space nasbench201 --limit memory=0.3MB",
}

#[typetag::serde(name = "memory")]
impl Cost for Memory {
    fn unit(&self) -> Unit {
        Unit::Bytes
    }

    fn of(&self, network: &Network) -> Result<f64> {
        Ok(network.activation_bytes() as f64)
    }
}
