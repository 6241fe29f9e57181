//! Zen-score (Lin et al. 2021): how far a small change of a random image moves the features.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::rng::normal;
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use super::total;

/// Settings of `zen`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zen {
    /// Size of the change.
    pub gamma: f64,
    /// Fresh weights and images that the score is the mean over.
    pub repeats: u64,
}

register! {
    proxy "zen" => Zen,
    summary: "logarithm of the change of the last features by noise in random images, scaled back by batch norms' variances",
    source: "Lin et al. 2021, ICCV, arXiv:2102.01063 (Zen-NAS)",
    defaults: "[proxy]\n# Size of the change.\ngamma = 0.01\n# Fresh weights and images that the score is the mean over: 32 in Zen-NAS, 1 in NAS-Bench-Suite-Zero.\nrepeats = 1\n",
    example: "nasfw score DARTS_V2 --proxy zen",
}

impl Zen {
    /// Standard normal weights of convolutions and linear layers, biases of zero.
    fn weights(start: &Start<'_>, repeat: u64) -> Tensor {
        let (kind, device) = start.options();
        let layout = start.network().layout();
        let kernels: Vec<&str> = start
            .network()
            .kernels()
            .map(|id| layout.name(id))
            .collect();
        let flat = start.weights().detach();
        let parts = layout.named(&flat).map(|(name, part)| {
            if kernels.contains(&name) {
                let rng = &mut start.rng(&format!("zen {repeat} {name}"));
                return normal(rng, &[part.numel() as i64], kind, device);
            }
            match name.ends_with(".bias") {
                true => part.zeros_like().reshape([-1]),
                false => part.reshape([-1]),
            }
        });
        Tensor::cat(&parts.collect::<Vec<_>>(), 0)
    }

    fn once(&self, start: &Start<'_>, repeat: u64) -> Result<f64> {
        let (kind, device) = start.options();
        let (weights, stats) = (Self::weights(start, repeat), start.stats());
        let shape = start.batch().images.size();
        let noise = |name: &str| {
            let rng = &mut start.rng(&format!("zen {name} {repeat}"));
            normal(rng, &shape, kind, device)
        };
        let images = noise("images");
        let changed = &images + noise("change") * self.gamma;
        let features = |images: &Tensor| -> Result<Tensor> {
            let both = Weights {
                params: &weights,
                stats: &stats,
            };
            let network = start.network();
            let run = || start.forward(network, both, images);
            let (_, mut told) = start.observe(Wanted::Features, run)?;
            let last = told.pop().map(|value| value.tensor.detach());
            last.ok_or(Error::HasNone {
                who: "this network",
                what: Wanted::Features.name(),
            })
        };
        let moved = (features(&images)? - features(&changed)?).abs();
        let moved = total(&moved) / start.batch().len() as f64;
        let variances = start.network().stats_layout().named(&stats);
        let variances = variances.filter(|(name, _)| name.ends_with("running_var"));
        let scales = variances.map(|(_, var)| {
            let mean = total(&var) / var.numel() as f64;
            0.5 * mean.ln()
        });
        Ok(moved.ln() + scales.sum::<f64>())
    }
}

#[typetag::serde(name = "zen")]
impl Proxy for Zen {
    /// log of the mean over images of ‖f(x) − f(x + γ ε)‖₁, f the features before the global average pooling, plus
    /// Σ over batch norms of log √(mean running variance). The paper has the variance of the batch there; the program, Zen-NAS's
    /// too, has the running one after both passes, which is 0.81 · 1 + 0.19 of theirs at PyTorch's momentum.
    fn score(&self, start: &Start<'_>) -> Result<f64> {
        let scores = (0..self.repeats).map(|i| no_grad(|| self.once(start, i)));
        let scores = scores.collect::<Result<Vec<f64>>>()?;
        Ok(scores.iter().sum::<f64>() / scores.len() as f64)
    }

    fn validate(&self, v: &mut Validator) {
        v.range("proxy.gamma", self.gamma, 1e-6, 1.0);
        v.range("proxy.repeats", self.repeats, 1, 10_000);
    }
}
