//! Zero-cost proxies: plugins that score a network before it is trained, from one batch.

use tch::{Device, Kind, Reduction, Tensor};

use crate::batches::{Augment, Batch, Batches, Draw, Order, Split};
use crate::dataset::ImageData;
use crate::error::{Error, Result};
use crate::gradients::differentiate;
use crate::network::Network;
use crate::observe::{self, Value, Wanted};
use crate::rng::{Rng, Streams};
use crate::settings::Validator;
use crate::supernet::{Mode, Weights};

/// A network at its start, with a batch: all that a proxy sees.
///
/// What it draws comes from its streams alone, so that every proxy scores the same fresh weights, and the same architecture
/// has the same score in every process. Kind and device are those of the images.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    network: &'a Network,
    batch: &'a Batch,
    streams: Streams,
}

impl<'a> Start<'a> {
    /// A network that is to be trained alone, and a batch of images of its task.
    ///
    /// # Errors
    /// A batch of less than two images: batch norm and correlations between images need two.
    pub fn new(network: &'a Network, batch: &'a Batch, streams: Streams) -> Result<Self> {
        if batch.len() < 2 {
            return Err(Error::Incompatible {
                what: format!("a score from {} image", batch.len()),
                why: "batch norms and correlations between images need two at least".into(),
                help: "take a larger batch".into(),
            });
        }
        Ok(Self {
            network,
            batch,
            streams,
        })
    }

    /// The network. It has no tensors of its own.
    pub fn network(&self) -> &'a Network {
        self.network
    }

    /// Images and labels.
    pub fn batch(&self) -> &'a Batch {
        self.batch
    }

    /// The generator of the stream `name`.
    pub fn rng(&self, name: &str) -> Rng {
        self.streams.at(name, 0)
    }

    /// Kind of floating-point number, and where tensors live.
    pub fn options(&self) -> (Kind, Device) {
        (self.batch.images.kind(), self.batch.images.device())
    }

    /// Fresh weights, `[weights]`, as a training from scratch would begin with: a leaf that requires gradients.
    pub fn weights(&self) -> Tensor {
        let (kind, device) = self.options();
        let streams = self.streams.child("weights", 0);
        let fresh = self.network.layout().init(streams, kind, device);
        fresh.detach().contiguous().set_requires_grad(true)
    }

    /// Fresh running statistics of batch norms.
    pub fn stats(&self) -> Tensor {
        let (kind, device) = self.options();
        let streams = self.streams.child("statistics", 0);
        self.network.stats_layout().init(streams, kind, device)
    }

    /// Logits `[n, classes]` of `images` at `weights` in training mode: batch norms take the statistics of these images, as
    /// all published programs do.
    ///
    /// # Errors
    /// Those of [`Network::forward`].
    pub fn logits(&self, weights: &Tensor, images: &Tensor) -> Result<Tensor> {
        let weights = Weights {
            params: weights,
            stats: &self.stats(),
        };
        self.forward(self.network, weights, images)
    }

    /// The same of another form of the network, with statistics that training mode updates in place.
    ///
    /// # Errors
    /// Those of [`Network::forward`].
    pub fn forward(
        &self,
        network: &Network,
        weights: Weights<'_>,
        images: &Tensor,
    ) -> Result<Tensor> {
        let noise = self.streams.child("noise", 0);
        let logits = network.forward(weights, images, Mode::Train, 0.0, noise)?;
        Ok(logits.main)
    }

    /// Mean cross-entropy of the batch at `weights`, a scalar with a graph.
    ///
    /// # Errors
    /// Those of [`Network::forward`].
    pub fn loss(&self, weights: &Tensor) -> Result<Tensor> {
        let logits = self.logits(weights, &self.batch.images)?;
        let labels = &self.batch.labels;
        Ok(logits.cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0))
    }

    /// What the forward passes in `run` tell ([`observe::values`]).
    ///
    /// # Errors
    /// Those of `run`; [`Error::HasNone`] where the network has no such values.
    pub fn observe<T>(
        &self,
        wanted: Wanted,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Vec<Value>)> {
        let (done, values) = observe::values(wanted, run);
        match (done?, values.is_empty()) {
            (_, true) => Err(Error::HasNone {
                who: "this network",
                what: wanted.name(),
            }),
            (done, false) => Ok((done, values)),
        }
    }

    /// Gradient of a scalar with respect to a leaf; zero where it does not depend on it.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn gradient(&self, scalar: &Tensor, leaf: &Tensor) -> Result<Tensor> {
        Ok(differentiate(scalar, &[leaf])?.remove(0))
    }

    /// Of a vector laid out as the weights, the parts of all convolutions and linear layers: no biases, no batch norms.
    pub fn kernels(&self, flat: &Tensor) -> Vec<Tensor> {
        let views = self.network.layout().views(flat);
        let kernels = self.network.kernels();
        kernels.map(|id| views[id].shallow_clone()).collect()
    }
}

/// A number that is to tell, before any training, which of two networks will be the better one. Higher is better. A score
/// that is not finite is none: it ranks below all others ([`ranks`]).
///
/// Settings are its own fields, kept by name.
#[typetag::serde(tag = "name")]
pub trait Proxy: Send + Sync + std::fmt::Debug {
    /// The score: a function of the settings and of `start` alone.
    ///
    /// # Errors
    /// A network that lacks what the proxy looks at ([`Error::HasNone`]), and whatever the forward pass has to say.
    fn score(&self, start: &Start<'_>) -> Result<f64>;

    /// Checks ranges before anything is scored; keys begin with `proxy.`.
    fn validate(&self, _v: &mut Validator) {}
}

/// A batch to score on: the first of a shuffled pass over all training images, which are not augmented. Of fewer images than
/// asked for where there are fewer.
///
/// # Errors
/// Too few images, and files that can't be read.
pub fn batch(
    data: &ImageData,
    images: usize,
    streams: Streams,
    (kind, device): (Kind, Device),
) -> Result<Batch> {
    let mut batches = Batches::new(data, streams.child("data", 0), kind, device)?;
    let draw = Draw {
        split: Split::Full,
        order: Order::Shuffled,
        pass: 0,
        index: 0,
        batch_size: images,
    };
    batches.batch(draw, Augment::default())
}

/// Rank of every score, 1 the lowest; equal ones share the mean of theirs. What is not finite is lowest, all alike.
pub fn ranks(scores: &[f64]) -> Vec<f64> {
    let worth = |score: &f64| match score.is_finite() {
        true => *score,
        false => f64::NEG_INFINITY,
    };
    let worths: Vec<f64> = scores.iter().map(worth).collect();
    let mut sorted = worths.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = |worth: &f64| {
        let below = sorted.partition_point(|other| other < worth);
        let up_to = sorted.partition_point(|other| other <= worth);
        (below + up_to + 1) as f64 / 2.0
    };
    worths.iter().map(rank).collect()
}

/// A vote of several proxies: of each architecture the sum of its ranks by each of them, `scores[proxy][architecture]`.
pub fn vote(scores: &[Vec<f64>]) -> Vec<f64> {
    let mut sums = vec![0.0; scores.first().map_or(0, Vec::len)];
    for scores in scores {
        for (sum, rank) in sums.iter_mut().zip(ranks(scores)) {
            *sum += rank;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_ties_and_what_is_not_finite_is_last() {
        let inf = f64::INFINITY;
        assert_eq!(
            ranks(&[3.0, f64::NAN, 1.0, 3.0, inf, -inf]),
            [5.5, 2.0, 4.0, 5.5, 2.0, 2.0]
        );
        assert_eq!(ranks(&[]), [0.0; 0]);
    }

    /// Two proxies of three disagree with the third.
    #[test]
    fn a_vote_sums_ranks() {
        let scores = [
            vec![1.0, 2.0, 3.0],
            vec![10.0, 30.0, 20.0],
            vec![-1.0, -2.0, -3.0],
        ];
        assert_eq!(vote(&scores), [5.0, 7.0, 6.0]);
        assert_eq!(vote(&[]), [0.0; 0]);
    }
}
