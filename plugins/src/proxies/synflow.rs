//! SynFlow (Tanaka et al. 2020): how much flows through the network from input to output, whatever the data.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::total;

/// Settings of `synflow`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Synflow {}

register! {
    proxy "synflow" => Synflow,
    summary: "logarithm of the synaptic flow of an image of ones through the absolute weights, without batch norm",
    source: "Tanaka, Kunin, Yamins, Ganguli 2020, NeurIPS, arXiv:2006.05467; as a score Abdelfattah et al. 2021, ICLR",
    defaults: "[proxy]\n",
    example: "nasfw score DARTS_V2 --proxy synflow",
}

#[typetag::serde(name = "synflow")]
impl Proxy for Synflow {
    /// log Σ |w ∂R/∂w|, R the sum of the logits of one image of ones at the absolute values of all parameters, in double
    /// precision: the flow of a deep network is beyond single. Batch norms hand their input on. NAS-Bench-Suite-Zero takes
    /// the logarithm, Abdelfattah et al. 2021 do not; ranks are the same, but that a network without any flow, which is the
    /// worst one here, is above those of a flow below one there.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        let network = start.network().without_batch_norm();
        let weights = start.weights().detach().to_kind(Kind::Double).abs();
        let weights = weights.set_requires_grad(true);
        let task = network.task();
        let device = weights.device();
        let shape = [1, task.channels, task.height, task.width];
        let ones = Tensor::ones(shape, (Kind::Double, device));
        let stats = start.stats().to_kind(Kind::Double);
        let both = Weights {
            params: &weights,
            stats: &stats,
        };
        let logits = start.forward(&network, both, &ones)?;
        let flow = start.gradient(&logits.sum(Kind::Double), &weights)?;
        let kernels = start.kernels(&weights.detach());
        let pairs = kernels.iter().zip(start.kernels(&flow));
        Ok(pairs.map(|(w, g)| total(&(w * g).abs())).sum::<f64>().ln())
    }
}
