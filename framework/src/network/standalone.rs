//! A standalone network for the one trainer.

use tch::{Reduction, Tensor};

use super::graph::Network;
use crate::arch::RelaxedArch;
use crate::error::{Error, Result};
use crate::params::ParamLayout;
use crate::rng::Streams;
use crate::supernet::{Mode, Supernet, Weights};

/// The architecture's scalar from which [`Standalone`] takes the rate of drop path.
pub const DROP_PATH: &str = "drop-path";

/// What the loss of a training alone has beside the cross-entropy of the logits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossOptions {
    /// Weight of the auxiliary classifier's loss: DARTS takes 0.4. 0 means that there is none.
    pub auxiliary: f64,
    /// Share of the labels that is spread over all classes: 0.1 on ImageNet.
    pub label_smoothing: f64,
}

/// A [`Network`] as a [`Supernet`] in which everything is decided: of the architecture it reads the scalar
/// [`DROP_PATH`] only (0 where it is missing).
///
/// Its output is `[n, classes]`, and in training with an auxiliary classifier `[n, 2 · classes]`: the main logits and
/// the auxiliary ones beside them.
#[derive(Debug)]
pub struct Standalone {
    network: Network,
    loss: LossOptions,
}

impl Standalone {
    /// A network whose loss is the cross-entropy of the main logits plus a share of that of the auxiliary ones, both with
    /// labels smoothed.
    ///
    /// # Errors
    /// A network to which no path leads from the images: there is nothing to be trained.
    pub fn new(network: Network, loss: LossOptions) -> Result<Self> {
        if !network.sees_images() {
            return Err(Error::Incompatible {
                what: "training of this architecture".into(),
                why: "no path leads from the images to the classifier: whatever it sees, it answers the same".into(),
                help: "train another one; a longer search, or another seed, may find it".into(),
            });
        }
        Ok(Self { network, loss })
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Main and auxiliary logits of an output.
    fn split(&self, output: &Tensor) -> (Tensor, Option<Tensor>) {
        let classes = self.network.task().classes;
        let auxiliary = output.size()[1] > classes;
        (
            output.narrow(1, 0, classes),
            auxiliary.then(|| output.narrow(1, classes, classes)),
        )
    }
}

impl Supernet for Standalone {
    fn layout(&self) -> &ParamLayout {
        self.network.layout()
    }

    fn stats_layout(&self) -> ParamLayout {
        self.network.stats_layout().clone()
    }

    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        mode: Mode,
        noise: Streams,
    ) -> Result<Tensor> {
        let rate = arch.scalars.get(DROP_PATH).copied().unwrap_or(0.0);
        let logits = self.network.forward(weights, images, mode, rate, noise)?;
        Ok(match logits.auxiliary {
            Some(auxiliary) => Tensor::cat(&[logits.main, auxiliary], 1),
            None => logits.main,
        })
    }

    fn takes_one_image(&self) -> bool {
        self.network.takes_one_image()
    }

    fn loss(&self, output: &Tensor, labels: &Tensor) -> Tensor {
        let loss = |logits: &Tensor| {
            let smoothing = self.loss.label_smoothing;
            logits.cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, smoothing)
        };
        let (main, auxiliary) = self.split(output);
        match auxiliary {
            Some(auxiliary) => loss(&main) + loss(&auxiliary) * self.loss.auxiliary,
            None => loss(&main),
        }
    }

    fn correct(&self, output: &Tensor, labels: &Tensor) -> Tensor {
        let (main, _) = self.split(output);
        main.argmax(-1, false)
            .eq_tensor(labels)
            .sum(tch::Kind::Float)
    }
}
