//! The weight-sharing supernet: a pure function of its weights, a batch and an architecture.

use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use crate::arch::RelaxedArch;
use crate::error::Result;
use crate::params::ParamLayout;
use crate::rng::Streams;

/// Whether the forward pass is part of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics; tracked statistics, if any, are updated.
    Train,
    /// Tracked statistics where the supernet has them, else batch statistics; nothing is updated.
    Eval,
}

/// The two flat vectors of a supernet.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Trained parameters, laid out by [`Supernet::layout`].
    pub params: &'a Tensor,
    /// Running statistics, laid out by [`Supernet::stats_layout`]; updated in place in training mode.
    pub stats: &'a Tensor,
}

/// How batch norm behaves in the supernet (hook H23).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNormStats {
    /// Statistics of the batch at hand, always.
    #[default]
    Batch,
    /// Running statistics in evaluation mode.
    Running,
}

/// What a strategy asks of the supernet beyond the space's own settings. A space refuses what it can't do.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SupernetOptions {
    /// Initial channels, instead of the space's.
    pub channels: Option<i64>,
    /// Number of cells, instead of the space's.
    pub cells: Option<usize>,
    /// Candidates that exist: `[group][row][column]`; none means all (staged shrinking).
    pub allowed: Option<Vec<Vec<Vec<bool>>>>,
    /// 1/K of the channels go through the mixed operations (partial channels); 1 means all.
    pub partial_channels: Option<i64>,
    /// An identity beside every mixed operation, weighted by the architecture's scalar `auxiliary-skip`.
    pub auxiliary_skip: bool,
    /// Dropout after skip connections at the rate of the architecture's scalar `skip-dropout`.
    pub skip_dropout: bool,
    /// Drop path on mixed edges at the rate of the architecture's scalar `drop-path`.
    pub drop_path: bool,
    /// Batch-norm policy.
    pub batch_norm: BatchNormStats,
    /// Only operators that have derivatives of every order, no fused kernels.
    pub plain: bool,
}

/// A network that holds all candidates of a space.
///
/// Implementations keep layers' handles, never tensors: the same object serves any weights, so that virtual steps,
/// perturbed weights and rollbacks need no copy of the model. It must work for any floating-point kind and device of
/// its inputs.
pub trait Supernet: Send {
    /// Layout of the trained parameters.
    fn layout(&self) -> &ParamLayout;

    /// Logits `[batch, classes]` for `images` (`[batch, channels, height, width]`, normalised). Dropout, drop path and
    /// operations that add noise draw from `noise`, so that equal arguments give equal results.
    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        mode: Mode,
        noise: Streams,
    ) -> Result<Tensor>;

    /// Layout of the running statistics; most supernets have none.
    fn stats_layout(&self) -> ParamLayout {
        ParamLayout::new()
    }

    /// The loss of an output, a mean over images (micro-batches are weighted by theirs): cross-entropy, unless the
    /// space's problem is another.
    fn loss(&self, output: &Tensor, labels: &Tensor) -> Tensor {
        output.cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0)
    }

    /// How many of the batch are right, a scalar of kind float on the device.
    fn correct(&self, output: &Tensor, labels: &Tensor) -> Tensor {
        output.argmax(-1, false).eq_tensor(labels).sum(Kind::Float)
    }
}
