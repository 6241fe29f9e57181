//! Fisher (Theis et al. 2018; Turner et al. 2020): how much the loss would change if whole channels were cut.

use nasfw_framework::gradients::differentiate;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::total;

/// Settings of `fisher`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fisher {}

register! {
    proxy "fisher" => Fisher,
    summary: "sum over channels of the squared product of activations and their gradients",
    source: "Turner et al. 2020, ICLR (BlockSwap), arXiv:1906.04113; as a score Abdelfattah et al. 2021, ICLR",
    defaults: "[proxy]\n",
    example: "nasfw score DARTS_V2 --proxy fisher",
}

#[typetag::serde(name = "fisher")]
impl Proxy for Fisher {
    /// Σ over output channels c of mₗ · ½ · mean over images of (Σ over pixels of a ∂L/∂a)², a the outputs of convolutions and
    /// linear layers. mₗ, the number of weights that lead into a channel of layer l, is none of the papers': the programs
    /// give every weight its channel's value and add these up.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        let weights = start.weights();
        let (loss, told) = start.observe(Wanted::Layers, || start.loss(&weights))?;
        let outputs: Vec<&Tensor> = told.iter().map(|value| &value.tensor).collect();
        let gradients = differentiate(&loss, &outputs)?;
        let kernels = start.kernels(&weights.detach());
        let mut sum = 0.0;
        for (value, gradient) in told.iter().zip(gradients) {
            let Place::Layer { number } = value.place else {
                continue;
            };
            let inputs: i64 = kernels[number].size()[1..].iter().product();
            // [n, channels, pixels]
            let product = (value.tensor.detach() * gradient).to_kind(Kind::Double);
            let size = product.size();
            let pixels = product.reshape([size[0], size[1], -1]);
            let saliency = pixels.sum_dim_intlist([2i64].as_slice(), false, Kind::Double);
            let channels = saliency
                .square()
                .mean_dim([0i64].as_slice(), false, Kind::Double);
            sum += inputs as f64 * 0.5 * total(&channels);
        }
        Ok(sum)
    }
}
