//! Gradients image by image.

use tch::Tensor;

use super::running::Search;
use crate::arch::RelaxedArch;
use crate::batches::Batch;
use crate::error::{Error, Result};
use crate::gradients::{differentiate, differentiate_again};

impl Search {
    /// Gradients of every image's loss at weights `theta` and `arch`, one image after the other, with respect to leaves:
    /// `[m]` for a leaf of m numbers, zero where the loss does not depend on it. Stacked they are the Jacobian `[n, m]`
    /// (of θ: the neural tangent kernel is its product with its transpose; TE-NAS, Chen et al. 2021, ICLR, takes it).
    ///
    /// The whole batch goes through the supernet once. With batch statistics an image's loss depends on all images: the
    /// gradient is then that of its loss in this batch, also through its share in the statistics and theirs in it. The
    /// mean over images is always the gradient of [`Search::loss`]. Memory holds the graph of the whole batch, whatever
    /// `trainer.micro_batch` says, and the gradients that the strategy keeps.
    ///
    /// # Errors
    /// Those of [`Search::loss`], and a supernet whose output is not one of every image.
    pub fn image_gradients(
        &mut self,
        theta: &Tensor,
        arch: &RelaxedArch,
        batch: &Batch,
        leaves: &[&Tensor],
    ) -> Result<ImageGradients> {
        let arch = &self.with_scalars(arch);
        let mut losses = vec![];
        let mean = self.metered(theta, arch, batch, |search, theta, noise| {
            let net = search.supernet.as_ref();
            let each = |output: &Tensor| {
                let n = batch.len();
                if output.size().first() != Some(&n) {
                    return Err(Error::HasNone {
                        who: "the supernet of this space",
                        what: "output of its own for every image",
                    });
                }
                let one = |t: &Tensor, i| t.narrow(0, i, 1);
                losses = (0..n)
                    .map(|i| net.loss(&one(output, i), &one(&batch.labels, i)))
                    .collect();
                let all = Tensor::stack(&losses, 0);
                Ok(all.mean(all.kind()))
            };
            search.whole_by(net, theta, arch, batch, noise, each)
        })?;
        self.tell_differentiated(&mean, leaves);
        Ok(ImageGradients::of(losses, leaves))
    }
}

/// Gradients of scalars that share a graph, one scalar at a time, so that only one of them needs memory. The graph is let go
/// with the last one.
#[derive(Debug)]
pub struct ImageGradients {
    /// Those that are still to come, the last one first.
    scalars: Vec<Tensor>,
    leaves: Vec<Tensor>,
}

impl ImageGradients {
    /// Of any scalars: the losses of images, or what else a strategy makes of their outputs.
    pub fn of(mut scalars: Vec<Tensor>, leaves: &[&Tensor]) -> Self {
        scalars.reverse();
        Self {
            scalars,
            leaves: leaves.iter().map(|leaf| leaf.shallow_clone()).collect(),
        }
    }
}

impl Iterator for ImageGradients {
    type Item = Result<Vec<Tensor>>;

    fn next(&mut self) -> Option<Self::Item> {
        let scalar = self.scalars.pop()?;
        let leaves: Vec<&Tensor> = self.leaves.iter().collect();
        Some(match self.scalars.is_empty() {
            true => differentiate(&scalar, &leaves),
            false => differentiate_again(&scalar, &leaves, false),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.scalars.len();
        (left, Some(left))
    }
}

impl ExactSizeIterator for ImageGradients {}
