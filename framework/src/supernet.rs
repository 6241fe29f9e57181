//! The weight-sharing supernet: a pure function of its weights, a batch and an architecture.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Reduction, Tensor};

use crate::arch::{ArchSpec, RelaxedArch};
use crate::error::{Error, Result};
use crate::params::{ParamLayout, Stretch};
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
    /// Running statistics, laid out by [`Supernet::stats_layout`]; updated in place in training mode. They are averages: where
    /// a batch comes in parts, each part moves a copy of them, and they move to the mean of these.
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

/// Scalar of an architecture: weight of the identity beside every mixed operation.
pub const AUXILIARY_SKIP: &str = "auxiliary-skip";
/// Scalar of an architecture: rate of dropout after skip connections.
pub const SKIP_DROPOUT: &str = "skip-dropout";
/// Scalar of an architecture: rate at which what an edge puts out is dropped, image by image.
pub const DROP_PATH: &str = "drop-path";

impl SupernetOptions {
    /// Whether a candidate exists.
    pub fn allows(&self, group: usize, row: usize, column: usize) -> bool {
        (self.allowed.as_ref()).is_none_or(|a| a[group][row][column])
    }

    /// K: one K-th of the channels goes through the mixed operations.
    pub fn partial(&self) -> i64 {
        self.partial_channels.unwrap_or(1)
    }

    /// Weight of the auxiliary identities; zero where there are none.
    pub fn auxiliary(&self, arch: &RelaxedArch) -> f64 {
        match self.auxiliary_skip {
            true => arch.scalar(AUXILIARY_SKIP),
            false => 0.0,
        }
    }

    /// Rates of dropout after skip connections and of drop path: of training alone, where they are asked for.
    ///
    /// # Errors
    /// Rates outside of [0, 1).
    pub fn rates(&self, arch: &RelaxedArch, mode: Mode) -> Result<(f64, f64)> {
        let rate = |asked: bool, name| match asked && mode == Mode::Train {
            true => arch.rate(name),
            false => Ok(0.0),
        };
        Ok((
            rate(self.skip_dropout, SKIP_DROPOUT)?,
            rate(self.drop_path, DROP_PATH)?,
        ))
    }

    /// Sums of the weights of a group's rows (`[rows]`) over the candidates that exist: what the channels weigh that
    /// bypass a row's mixed operation.
    pub fn row_sums(&self, arch: &RelaxedArch, group: usize) -> Tensor {
        let weights = &arch.weights[group];
        let exist = self.allowed.as_ref().map(|allowed| {
            let (shape, mut mask) = (weights.size(), vec![]);
            for row in &allowed[group] {
                mask.extend((0..shape[1] as usize).map(|c| row.get(c) == Some(&true)));
            }
            weights
                * Tensor::from_slice(&mask)
                    .view([shape[0], shape[1]])
                    .to_device(weights.device())
        });
        let sums = |w: &Tensor| w.sum_dim_intlist([1i64].as_slice(), false, w.kind());
        exist.as_ref().map_or_else(|| sums(weights), sums)
    }

    /// Checks that the candidates that exist are those of a space, and that K is a number of parts.
    ///
    /// # Errors
    /// Those that do not fit.
    pub fn check(&self, spec: &ArchSpec) -> Result<()> {
        let invalid = |why: String| Error::Invalid {
            what: "options of a supernet".into(),
            why,
        };
        if self.partial() < 1 {
            return Err(invalid(format!(
                "`partial_channels` is {}, at least 1 is needed",
                self.partial()
            )));
        }
        let Some(allowed) = &self.allowed else {
            return Ok(());
        };
        let fits = allowed.len() == spec.groups().len()
            && allowed.iter().zip(spec.groups()).all(|(rows, group)| {
                rows.len() == group.rows.len()
                    && rows
                        .iter()
                        .zip(&group.rows)
                        .all(|(r, row)| r.len() == row.candidates.len())
            });
        match fits {
            true => Ok(()),
            false => Err(invalid(
                "`allowed` has another shape than the space's decisions".into(),
            )),
        }
    }
}

/// Weights that are one candidate's alone, in one cell: without the candidate they have no gradient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnWeights {
    /// Number of the cell, 0 in a network without cells.
    pub cell: usize,
    /// Number of the group.
    pub group: usize,
    /// Number of the row in the group.
    pub row: usize,
    /// Number of the candidate in the row.
    pub column: usize,
    /// Where they are in the flat vector.
    pub stretches: Vec<Stretch>,
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

    /// Fresh parameters, as a training begins with: drawn as the layout says, unless a supernet draws them itself.
    ///
    /// # Errors
    /// A supernet that can't draw them.
    fn init(&self, streams: Streams, kind: Kind, device: Device) -> Result<Tensor> {
        Ok(self.layout().init(streams, kind, device))
    }

    /// The same of the running statistics.
    ///
    /// # Errors
    /// As [`Supernet::init`].
    fn init_stats(&self, streams: Streams, kind: Kind, device: Device) -> Result<Tensor> {
        Ok(self.stats_layout().init(streams, kind, device))
    }

    /// How many cells take weights of the architecture of their own, [`RelaxedArch::cells`], numbered from input to output.
    /// None (0) refuses them.
    fn cells(&self) -> usize {
        0
    }

    /// The group whose weights cell `k` takes, where cells are of several types with a group each; none where every cell
    /// takes all groups.
    fn cell_group(&self, _k: usize) -> Option<usize> {
        None
    }

    /// The weights that candidates have for themselves. Those of a stem, a classifier and whatever several candidates go
    /// through are nobody's own, and candidates without weights are left out. A supernet that does not tell has none.
    fn own_weights(&self) -> Vec<OwnWeights> {
        vec![]
    }

    /// Whether a batch of a single image can be trained on. It can't where a batch norm sees one pixel of an image: one
    /// number has no variance. An image that would be left over at the end of a pass then joins the batch before it.
    fn takes_one_image(&self) -> bool {
        true
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
