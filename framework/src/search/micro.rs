//! The loss of a batch: of the whole, or of micro-batches one after the other, so that only one of them needs memory.

use std::iter;

use nasfw_kernels::{precision, surrogate};
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use super::Search;
use crate::arch::RelaxedArch;
use crate::batches::Batch;
use crate::error::Result;
use crate::rng::Streams;
use crate::supernet::{Mode, Supernet, Weights};

/// In which precision a supernet's convolutions and matrix products are computed. Weights, gradients and everything
/// else of a search keep theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Autocast {
    /// In that of the weights.
    None,
    /// In bfloat16, where libtorch's autocast takes that for enough.
    Bf16,
}

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
            Some(size) if (size as i64) < batch.len() => {
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
        let weights = Weights {
            params: theta,
            stats: &self.stats,
        };
        let autocast = match self.settings.autocast {
            Autocast::None => None,
            Autocast::Bf16 => Some(precision::Autocast::bf16(self.device)),
        };
        let output = supernet.forward(weights, &batch.images, arch, Mode::Train, noise)?;
        let loss = supernet.loss(&output, &batch.labels);
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
            .collect();
        let cut = |t: &&Tensor| t.detach().set_requires_grad(t.requires_grad());
        let leaves: Vec<Tensor> = inputs.iter().map(cut).collect();
        let wanted = |t: &&Tensor| t.requires_grad();
        let wanted_leaves: Vec<&Tensor> = leaves.iter().filter(wanted).collect();
        let (weights, offsets) = leaves[1..].split_at(arch.weights.len());
        let copies = |leaves: &[Tensor]| leaves.iter().map(Tensor::shallow_clone).collect();
        let arch = RelaxedArch {
            weights: copies(weights),
            offsets: arch.offsets.is_some().then(|| copies(offsets)),
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

/// Gradients of a scalar with respect to leaves; zero where it does not depend on one.
pub(super) fn differentiate(loss: &Tensor, leaves: &[&Tensor]) -> Result<Vec<Tensor>> {
    backward(loss, leaves, false, false)
}

/// As [`differentiate`], keeping the graph; with `twice` the gradients have graphs of their own.
pub(super) fn differentiate_again(
    loss: &Tensor,
    leaves: &[&Tensor],
    twice: bool,
) -> Result<Vec<Tensor>> {
    backward(loss, leaves, true, twice)
}

fn backward(loss: &Tensor, leaves: &[&Tensor], keep: bool, twice: bool) -> Result<Vec<Tensor>> {
    if !loss.requires_grad() {
        // libtorch does not survive a scalar without a graph.
        return Ok(leaves.iter().map(|l| l.detach().zeros_like()).collect());
    }
    let gradients = Tensor::f_run_backward(&[loss], leaves, keep, twice)?;
    Ok(gradients
        .into_iter()
        .zip(leaves)
        .map(|(g, leaf)| {
            if g.defined() {
                g
            } else {
                leaf.detach().zeros_like()
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tch::Kind;

    #[test]
    fn what_a_loss_does_not_depend_on_has_the_gradient_zero() {
        let leaf = || Tensor::from_slice(&[1.0, 2.0]).set_requires_grad(true);
        let (a, b) = (leaf(), leaf());
        let gradients = differentiate(&a.square().sum(Kind::Double), &[&a, &b]).unwrap();
        assert_eq!(gradients, [&a.detach() * 2, b.detach().zeros_like()]);
        let constant = differentiate(&a.detach().sum(Kind::Double), &[&b]).unwrap();
        assert_eq!(constant, [b.detach().zeros_like()]);
    }
}
