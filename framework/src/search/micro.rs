//! The loss of a batch: of the whole, or of micro-batches, so that only one of them needs memory. They are computed one after
//! the other, or by the processes of the run at the same time.

use std::iter;

use nasfw_kernels::{precision, surrogate};
use tch::{Tensor, no_grad};

use super::running::{Autocast, Search};
use crate::arch::RelaxedArch;
use crate::batches::Batch;
use crate::error::Result;
use crate::gradients::differentiate;
use crate::observe;
use crate::ranks;
use crate::rng::Streams;
use crate::supernet::{Mode, Supernet, Weights};

impl Search {
    /// Loss of a batch, a scalar with a graph, and its [`Search::sums`].
    ///
    /// In micro-batches, forward and backward passes are done here at once. The result then knows its value and its
    /// first derivatives with respect to `theta`, the weights of `arch` and its offsets, as far as these require
    /// gradients.
    pub(super) fn pass(
        &self,
        theta: &Tensor,
        arch: &RelaxedArch,
        batch: &Batch,
        noise: Streams,
    ) -> Result<(Tensor, Tensor)> {
        let Some(count) = self.count(batch.len()) else {
            return self.whole(self.supernet.as_ref(), theta, arch, batch, noise);
        };
        let parts = split(batch, count);
        let pass = || self.parts(theta, arch, batch, &parts, noise);
        match self.settings.sync_batch_norm {
            true => ranks::over(&self.ranks, pass),
            false => pass(),
        }
    }

    /// Number of parts that a batch is computed in; none in one piece.
    fn count(&self, images: i64) -> Option<i64> {
        if observe::is_on() {
            // What is observed must keep its graph.
            return None;
        }
        if self.settings.sync_batch_norm {
            // Every process has one part, with the statistics of all.
            let world = self.ranks.world() as i64;
            return (world > 1 && images >= 2 * world).then_some(world);
        }
        let size = self.settings.micro_batch? as i64;
        let fewest = (images + size - 1) / size;
        // None is of one image unless that can be trained on alone: parts may then have an image more.
        let count = match self.supernet.takes_one_image() {
            true => fewest,
            false => fewest.min(images / 2).max(1),
        };
        (size < images).then_some(count)
    }

    /// The batch in one pass through a supernet.
    pub(super) fn whole(
        &self,
        supernet: &dyn Supernet,
        theta: &Tensor,
        arch: &RelaxedArch,
        batch: &Batch,
        noise: Streams,
    ) -> Result<(Tensor, Tensor)> {
        self.whole_by(supernet, theta, arch, batch, noise, |output| {
            Ok(supernet.loss(output, &batch.labels))
        })
    }

    /// The same by another loss of the output.
    pub(super) fn whole_by(
        &self,
        supernet: &dyn Supernet,
        theta: &Tensor,
        arch: &RelaxedArch,
        batch: &Batch,
        noise: Streams,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let weights = Weights {
            params: theta,
            stats: &self.stats,
        };
        self.forward(supernet, weights, arch, batch, noise, loss)
    }

    fn forward(
        &self,
        supernet: &dyn Supernet,
        weights: Weights<'_>,
        arch: &RelaxedArch,
        batch: &Batch,
        noise: Streams,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let autocast = match self.settings.autocast {
            Autocast::None => None,
            Autocast::Bf16 => Some(precision::Autocast::bf16(self.device)),
        };
        let output = supernet.forward(weights, &batch.images, arch, Mode::Train, noise)?;
        let loss = loss(&output)?;
        drop(autocast);
        let sums = no_grad(|| self.sums(&output.detach(), &loss.detach(), batch));
        Ok((loss, sums))
    }

    fn parts(
        &self,
        theta: &Tensor,
        arch: &RelaxedArch,
        batch: &Batch,
        parts: &[Batch],
        noise: Streams,
    ) -> Result<(Tensor, Tensor)> {
        let inputs: Vec<&Tensor> = iter::once(theta)
            .chain(&arch.weights)
            .chain(arch.offsets.iter().flatten())
            .chain(arch.cells.iter().flatten().flatten())
            .collect();
        let cut = |t: &&Tensor| t.detach().set_requires_grad(t.requires_grad());
        let leaves: Vec<Tensor> = inputs.iter().map(cut).collect();
        let wanted = |t: &&Tensor| t.requires_grad();
        let wanted_leaves: Vec<&Tensor> = leaves.iter().filter(wanted).collect();
        let (weights, others) = leaves[1..].split_at(arch.weights.len());
        let (offsets, cells) = others.split_at(arch.offsets.as_ref().map_or(0, Vec::len));
        let copies = |leaves: &[Tensor]| leaves.iter().map(Tensor::shallow_clone).collect();
        let arch = RelaxedArch {
            weights: copies(weights),
            offsets: arch.offsets.is_some().then(|| copies(offsets)),
            cells: (arch.cells.is_some())
                .then(|| cells.chunks(arch.weights.len()).map(copies).collect()),
            ..arch.detach()
        };
        let mut sums = self.ranks.sum_in_order(parts.len(), |i| {
            let (part, noise) = (&parts[i], noise.child("micro-batch", i as u64));
            // Its running statistics take their step from where those of the batch do.
            let stats = self.stats.copy();
            let weights = Weights {
                params: &leaves[0],
                stats: &stats,
            };
            let net = self.supernet.as_ref();
            let loss = |output: &Tensor| Ok(net.loss(output, &part.labels));
            let (loss, sums) = self.forward(net, weights, &arch, part, noise, loss)?;
            // All are means over images: a part counts as much as it has images.
            let share = part.len() as f64 / batch.len() as f64;
            let loss = loss * share;
            let mut terms = vec![
                loss.detach(),
                sums,
                no_grad(|| (stats - &self.stats) * share),
            ];
            if loss.requires_grad() {
                terms.extend(differentiate(&loss, &wanted_leaves)?);
            }
            Ok(terms)
        })?;
        let slopes = sums.split_off(3);
        let [loss, sums, moved] = [0, 1, 2].map(|i| sums[i].shallow_clone());
        let _ = no_grad(|| self.stats.shallow_clone().g_add_(&moved));
        if slopes.is_empty() {
            return Ok((loss, sums));
        }
        let inputs: Vec<&Tensor> = inputs.into_iter().filter(wanted).collect();
        Ok((surrogate::scalar(&loss, &inputs, &slopes)?, sums))
    }

    /// At most `n` parts of a batch ([`Batch::parts`]): as many as leave none with a single image that can't be trained
    /// on alone ([`Supernet::takes_one_image`]).
    #[must_use]
    pub fn parts_of(&self, batch: &Batch, n: i64) -> Vec<Batch> {
        let least = if self.supernet.takes_one_image() {
            1
        } else {
            2
        };
        let fits = |parts: &Vec<Batch>| parts.iter().all(|part| part.len() >= least);
        let counts = (2..=n.min(batch.len())).rev();
        counts
            .map(|n| batch.parts(n))
            .find(fits)
            .unwrap_or_else(|| batch.parts(1))
    }
}

/// A batch in parts that differ by one image at most.
fn split(batch: &Batch, count: i64) -> Vec<Batch> {
    let images = batch.len();
    let mut begin = 0;
    let parts = (0..count).map(|i| {
        let length = images / count + i64::from(i < images % count);
        let part = |t: &Tensor| t.narrow(0, begin, length);
        let part = Batch {
            images: part(&batch.images),
            labels: part(&batch.labels),
            split: batch.split,
        };
        begin += length;
        part
    });
    parts.collect()
}
