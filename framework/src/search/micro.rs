//! The loss of a batch: of the whole, or of micro-batches one after the other, so that only one of them needs memory.

use std::iter;

use nasfw_kernels::{precision, surrogate};
use tch::{Tensor, no_grad};

use super::running::{Autocast, Search};
use crate::arch::RelaxedArch;
use crate::batches::Batch;
use crate::error::Result;
use crate::gradients::differentiate;
use crate::observe;
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
        match self.settings.micro_batch {
            // What is observed must keep its graph.
            Some(size) if (size as i64) < batch.len() && !observe::is_on() => {
                self.parts(theta, arch, batch, size as i64, noise)
            }
            _ => self.whole(self.supernet.as_ref(), theta, arch, batch, noise),
        }
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
        size: i64,
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
        let (mut losses, mut sums, mut slopes) = (vec![], vec![], vec![]);
        for (i, part) in split(batch, size, self.supernet.takes_one_image()).enumerate() {
            let noise = noise.child("micro-batch", i as u64);
            let (loss, of_part) =
                self.whole(self.supernet.as_ref(), &leaves[0], &arch, &part, noise)?;
            // The loss is a mean over images: a part counts as much as it has images.
            let loss = loss * (part.len() as f64 / batch.len() as f64);
            if loss.requires_grad() {
                let new = differentiate(&loss, &wanted_leaves)?;
                slopes = match slopes.is_empty() {
                    true => new,
                    false => slopes.iter().zip(new).map(|(sum, g)| sum + g).collect(),
                };
            }
            losses.push(loss.detach());
            sums.push(of_part);
        }
        let sum = |parts: &[Tensor]| Tensor::stack(parts, 0).sum_to_size(parts[0].size());
        let (loss, sums) = (sum(&losses), sum(&sums));
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

/// A batch in the fewest parts of at most `size` images, which differ by one image at most. None is of one image unless
/// that can be `alone`: parts may then have an image more.
fn split(batch: &Batch, size: i64, alone: bool) -> impl Iterator<Item = Batch> {
    let images = batch.len();
    let count = (images + size - 1) / size;
    let count = if alone {
        count
    } else {
        count.min(images / 2).max(1)
    };
    let mut begin = 0;
    (0..count).map(move |i| {
        let length = images / count + i64::from(i < images % count);
        let part = |t: &Tensor| t.narrow(0, begin, length);
        let part = Batch {
            images: part(&batch.images),
            labels: part(&batch.labels),
            split: batch.split,
        };
        begin += length;
        part
    })
}
