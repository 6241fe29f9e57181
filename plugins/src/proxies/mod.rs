//! The zero-cost proxies of NAS-Bench-Suite-Zero (Krishnakumar et al. 2022), one file each. They follow its program and that
//! of Abdelfattah et al. 2021, from which it comes; each says where its own paper has it otherwise.
//!
//! What they have in common: weights fresh from PyTorch's default start, one batch, cross-entropy, training mode, so that
//! batch norms take the batch's statistics; saliencies are of the weights of convolutions and linear layers alone.

mod epe_nas;
mod fisher;
mod flops;
mod grad_norm;
mod grasp;
mod jacobian;
mod jacov;
mod l2_norm;
mod nwot;
mod params;
mod plain;
mod snip;
mod synflow;
mod zen;

use nasfw_framework::prelude::*;
use tch::{Kind, Tensor};

/// A sum as a number, added up in double precision.
fn total(x: &Tensor) -> f64 {
    x.sum(Kind::Double).double_value(&[])
}

/// Weights of each convolution and linear layer with the loss's gradient in them.
fn slopes(start: &Start<'_>) -> Result<Vec<(Tensor, Tensor)>> {
    let weights = start.weights();
    let gradient = start.gradient(&start.loss(&weights)?, &weights)?;
    let kernels = start.kernels(&weights.detach()).into_iter();
    Ok(kernels.zip(start.kernels(&gradient)).collect())
}
