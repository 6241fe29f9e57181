//! GraSP (Wang et al. 2020): how much the flow of gradients would change if single weights were cut.

use nasfw_framework::gradients::differentiate_again;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::total;

/// Settings of `grasp`: none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grasp {}

register! {
    proxy "grasp" => Grasp,
    summary: "sum of −w · (H g): gradient signal preservation",
    source: "Wang, Zhang, Grosse 2020, ICLR, arXiv:2002.07376; as a score Abdelfattah et al. 2021, ICLR",
    defaults: "[proxy]\n",
    example: "nasfw score DARTS_V2 --proxy grasp",
}

#[typetag::serde(name = "grasp")]
impl Proxy for Grasp {
    /// Σ −w (H g), g the gradient and H the Hessian in the weights of convolutions and linear layers. The paper takes the
    /// two factors of g from two batches and divides logits by a temperature of 200; the programs take one batch and 1.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        let weights = start.weights();
        let loss = start.loss(&weights)?;
        let gradient = differentiate_again(&loss, &[&weights], true)?.remove(0);
        // Of the other parameters the gradient has no part in this.
        let parts = start.kernels(&gradient);
        let dots: Vec<Tensor> = parts
            .iter()
            .map(|g| (g.detach() * g).sum(loss.kind()))
            .collect();
        let product = start.gradient(&Tensor::stack(&dots, 0).sum(loss.kind()), &weights)?;
        let kernels = start.kernels(&weights.detach());
        let pairs = kernels.iter().zip(start.kernels(&product));
        Ok(pairs
            .map(|(w, hg)| -total(&(w * hg).to_kind(Kind::Double)))
            .sum())
    }
}
