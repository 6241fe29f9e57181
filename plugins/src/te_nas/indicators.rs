//! The two indicators: condition number of the tangent kernel, number of linear regions.

use std::collections::HashSet;

use nasfw_framework::gradients::differentiate_again;
use nasfw_framework::observe::{self, Wanted};
use nasfw_framework::prelude::*;
use rand::RngExt;
use tch::{Kind, Tensor, no_grad};

/// κ of a kernel without one: the published program's.
const NONE: f64 = 1e5;

/// A supernet with fresh weights.
#[derive(Clone, Copy)]
pub struct Fresh<'a> {
    net: &'a dyn Supernet,
    weights: &'a Tensor,
    noise: Streams,
}

impl<'a> Fresh<'a> {
    /// `weights` (`[weights]`) require gradients; `noise` is for operations that draw.
    pub fn new(net: &'a dyn Supernet, weights: &'a Tensor, noise: Streams) -> Self {
        Self {
            net,
            weights,
            noise,
        }
    }

    fn output(&self, images: &Tensor, arch: &RelaxedArch) -> Result<Tensor> {
        let options = (self.weights.kind(), self.weights.device());
        let stats = self.net.init_stats(self.noise, options.0, options.1)?;
        let weights = Weights {
            params: self.weights,
            stats: &stats,
        };
        self.net
            .forward(weights, images, arch, Mode::Train, self.noise)
    }

    /// The empirical neural tangent kernel `[n, n]` of a batch, in double precision: J Jᵀ, where row i of J is the gradient
    /// of the sum of image i's logits with respect to all parameters whose name says that they are weights (of all, where
    /// none does). With batch statistics other images have a part in it.
    ///
    /// # Errors
    /// Whatever the forward pass has to say.
    pub fn kernel(&self, images: &Tensor, arch: &RelaxedArch) -> Result<Tensor> {
        let output = self.output(images, arch)?;
        let n = images.size()[0];
        if output.size().first() != Some(&n) {
            return Err(Error::HasNone {
                who: "the supernet of this space",
                what: "output of its own for every image",
            });
        }
        let layout = self.net.layout();
        let is_weight = |name: &str| name.contains("weight");
        let named = layout.entries().any(|(name, _)| is_weight(name));
        let rows = (0..n).map(|i| {
            let sum = output.get(i).sum(output.kind());
            let gradient = differentiate_again(&sum, &[self.weights], false)?.remove(0);
            let parts = layout.named(&gradient);
            let parts = parts.filter(|(name, _)| !named || is_weight(name));
            let parts: Vec<Tensor> = parts.map(|(_, part)| part.reshape([-1])).collect();
            Ok(Tensor::cat(&parts, 0).to_kind(Kind::Double))
        });
        let jacobian = Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0);
        Ok(jacobian.matmul(&jacobian.tr()))
    }

    /// κ: the largest eigenvalue of the kernel divided by the smallest one. 100,000 where that is no positive number.
    ///
    /// # Errors
    /// Those of [`Fresh::kernel`].
    pub fn condition(&self, images: &Tensor, arch: &RelaxedArch) -> Result<f64> {
        let kernel = self.kernel(images, arch)?;
        if !kernel.sum(Kind::Double).double_value(&[]).is_finite() {
            return Ok(NONE);
        }
        let eigenvalues = no_grad(|| kernel.f_linalg_eigvalsh("L"))?;
        let largest = eigenvalues.max().double_value(&[]);
        let condition = largest / eigenvalues.min().double_value(&[]);
        Ok(match condition.is_finite() && condition > 0.0 {
            true => condition,
            false => NONE,
        })
    }

    /// R: how many different patterns of ReLUs that are on the images have.
    ///
    /// # Errors
    /// Whatever the forward pass has to say, and a network without ReLUs that it tells of.
    pub fn regions(&self, images: &Tensor, arch: &RelaxedArch) -> Result<f64> {
        let pass = || no_grad(|| self.output(images, arch));
        let (done, told) = observe::values(Wanted::ReluInputs, pass);
        let _logits = done?;
        let on = told
            .iter()
            .map(|v| v.tensor.detach().gt(0.0).flatten(1, -1));
        let on: Vec<Tensor> = on.collect();
        if on.is_empty() {
            return Ok(1.0);
        }
        let patterns = Tensor::cat(&on, 1).to_kind(Kind::Uint8).contiguous();
        let width = patterns.size()[1].max(1) as usize;
        let bytes = Vec::<u8>::try_from(patterns.view([-1]))?;
        let different: HashSet<&[u8]> = bytes.chunks(width).collect();
        Ok(different.len() as f64)
    }
}

/// Crops of `side`² pixels at random places of images (`[n, c, h, w]`), each of one random channel: `[n, 1, side, side]`.
///
/// # Errors
/// Images smaller than that.
pub fn crops(images: &Tensor, side: i64, rng: &mut Rng) -> Result<Tensor> {
    let (n, c, h, w) = images.size4()?;
    if h < side || w < side {
        return Err(Error::Incompatible {
            what: "linear regions".into(),
            why: format!("they are counted on crops of {side}×{side} pixels, images have {h}×{w}"),
            help: "take smaller crops with `--set strategy.region_pixels=…`, or larger images"
                .into(),
        });
    }
    let mut at = Vec::with_capacity((n * side * side) as usize);
    for _ in 0..n {
        let channel = rng.random_range(0..c);
        let (y, x) = (
            rng.random_range(0..=h - side),
            rng.random_range(0..=w - side),
        );
        for dy in 0..side {
            at.extend((0..side).map(|dx| (channel * h + y + dy) * w + x + dx));
        }
    }
    let at = Tensor::from_slice(&at)
        .view([n, -1])
        .to_device(images.device());
    let flat = images.reshape([n, -1]);
    Ok(flat.gather(1, &at, false).view([n, 1, side, side]))
}
