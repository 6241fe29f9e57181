//! Multiply-adds of one image.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

/// Settings of `macs`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Macs {}

register! {
    cost "macs" => Macs,
    summary: "multiply-adds of one image through convolutions and linear layers",
    source: "Sze et al. 2017, Proceedings of the IEEE, arXiv:1703.09039 (as a measure)",
    defaults: "[cost]\n",
    example: "nasfw run --strategy darts --space nasbench201 --limit macs=100M",
}

#[typetag::serde(name = "macs")]
impl Cost for Macs {
    fn unit(&self) -> Unit {
        Unit::Count
    }

    fn of(&self, network: &Network) -> Result<f64> {
        Ok(network.size().macs as f64)
    }
}
