//! The variational graph auto-encoder of arch2vec (Yan et al. 2020).

use nasfw_framework::prelude::*;
use nasfw_framework::rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::gin::{Gin, Learner, Linear, Size};
use super::graph::{Graph, Graphs, Vocabulary};

/// Settings of the auto-encoder and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeConfig {
    /// Hidden units of the GIN.
    pub hidden: i64,
    /// Layers of the GIN.
    pub layers: usize,
    /// Latent numbers a vertex.
    pub latent: i64,
    /// Dropout of latent numbers before they are decoded.
    pub dropout: f64,
    /// Passes over the architectures.
    pub epochs: u64,
    /// Architectures a step.
    pub batch: usize,
    /// Rate of Adam.
    pub lr: f64,
    /// Share of the architectures that is held out to measure reconstruction.
    pub held_out: f64,
}

/// A GIN gives each vertex a mean and the logarithm of a standard deviation; a latent z is drawn; a linear map tells the
/// vertex's label from it by a softmax, and σ(z_u · z_v) whether u and v are joined.
#[derive(Debug)]
pub struct Vae {
    gin: Gin,
    mean: Linear,
    log_std: Linear,
    labels: Linear,
    params: ParamLayout,
    stats: ParamLayout,
    latent: i64,
}

/// What of a loss is random, drawn beforehand: `[vertices, latent]` each.
#[derive(Debug)]
pub struct Noise {
    /// Standard normal.
    pub normal: Tensor,
    /// Zero where a latent number is dropped, else 1 / (1 − rate).
    pub kept: Tensor,
}

impl Noise {
    /// A draw.
    pub fn draw(rng: &mut Rng, shape: [i64; 2], dropout: f64, kind: Kind) -> Self {
        let host = tch::Device::Cpu;
        let normal = rng::normal(rng, &shape, kind, host);
        let kept = rng::uniform(rng, &shape, kind, host).ge(dropout);
        Self {
            normal,
            kept: kept.to_kind(kind) / (1.0 - dropout),
        }
    }
}

/// How much of architectures the auto-encoder gives back, as shares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reconstruction {
    /// Vertices whose label it tells.
    #[serde(with = "nasfw_framework::lossless")]
    pub labels: f64,
    /// Pairs of vertices of which it tells whether an edge joins them.
    #[serde(with = "nasfw_framework::lossless")]
    pub edges: f64,
    /// Architectures of which it tells all of both.
    #[serde(with = "nasfw_framework::lossless")]
    pub whole: f64,
}

impl Vae {
    /// A network for a vocabulary.
    pub fn new(config: &VaeConfig, vocabulary: &Vocabulary) -> Self {
        let (mut params, mut stats) = (ParamLayout::new(), ParamLayout::new());
        let size = Size {
            inputs: vocabulary.width(),
            hidden: config.hidden,
            layers: config.layers,
        };
        let gin = Gin::new(&mut params, &mut stats, size);
        let mut linear = |name, n, m| Linear::new(&mut params, name, n, m);
        Self {
            mean: linear("mean", config.hidden, config.latent),
            log_std: linear("log_std", config.hidden, config.latent),
            labels: linear("labels", config.latent, vocabulary.len() as i64),
            gin,
            params,
            stats,
            latent: config.latent,
        }
    }

    /// Fresh parameters. Gradients are clipped at 5, as in the authors' code.
    pub fn start(&self, streams: Streams, kind: Kind, lr: f64) -> Learner {
        Learner::new([&self.params, &self.stats], streams, kind, lr, 5.0)
    }

    /// Means and logarithms of standard deviations: `[vertices, latent]` each.
    pub fn encode(&self, learner: &Learner, graphs: &Graphs, mode: Mode) -> (Tensor, Tensor) {
        let params = self.params.views(&learner.params);
        let stats = self.stats.views(&learner.stats);
        let x = self.gin.forward(&params, &stats, graphs, mode);
        (
            self.mean.forward(&params, &x),
            self.log_std.forward(&params, &x),
        )
    }

    /// Logits of labels `[vertices, labels]` and of edges `[pairs]`.
    fn decode(&self, learner: &Learner, graphs: &Graphs, z: &Tensor) -> (Tensor, Tensor) {
        let labels = self.labels.forward(&self.params.views(&learner.params), z);
        let [u, v] = graphs.pairs.each_ref().map(|p| z.index_select(0, p));
        (
            labels,
            (u * v).sum_dim_intlist([-1i64].as_slice(), false, z.kind()),
        )
    }

    /// −ln p(labels | z), −ln p(edges | z) and KL(q(z) ‖ N(0, 1)), each summed over all graphs: scalars.
    pub fn terms(&self, learner: &Learner, graphs: &Graphs, noise: &Noise) -> [Tensor; 3] {
        let (mean, log_std) = self.encode(learner, graphs, Mode::Train);
        let z = (&mean + log_std.exp() * &noise.normal) * &noise.kept;
        let (labels, edges) = self.decode(learner, graphs, &z);
        let sum = tch::Reduction::Sum;
        let labels = labels.cross_entropy_loss::<Tensor>(&graphs.labels, None, sum, -100, 0.0);
        let edges =
            edges.binary_cross_entropy_with_logits::<Tensor>(&graphs.joined, None, None, sum);
        let kl = (mean.square() + (&log_std * 2.0).exp() - log_std * 2.0 - 1.0) * 0.5;
        let kl = kl.sum(mean.kind());
        [labels, edges, kl]
    }

    /// What is descended: the terms a vertex, the divergence divided once more by the vertices of the batch, as in the
    /// authors' code.
    pub fn loss(&self, learner: &Learner, graphs: &Graphs, noise: &Noise) -> Tensor {
        let [labels, edges, kl] = self.terms(learner, graphs, noise);
        let n = graphs.vertices() as f64;
        (labels + edges + kl / n) / n
    }

    /// Learns graphs, all but those that are held out, and tells how much of the latter it gives back.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn learn(
        &self,
        learner: &mut Learner,
        (graphs, vocabulary): (&[Graph], &Vocabulary),
        config: &VaeConfig,
        streams: Streams,
    ) -> Result<Reconstruction> {
        let kind = learner.params.kind();
        let mut order: Vec<usize> = (0..graphs.len()).collect();
        order.shuffle(&mut streams.at("held out", 0));
        let held_out = (graphs.len() as f64 * config.held_out) as usize;
        let (held_out, order) = order.split_at_mut(held_out);
        let mut step = 0;
        for epoch in 0..config.epochs {
            order.shuffle(&mut streams.at("order", epoch));
            for part in order.chunks(config.batch) {
                let batch = Graphs::new(part.iter().map(|&i| &graphs[i]), vocabulary, kind);
                let shape = [batch.vertices(), self.latent];
                let rng = &mut streams.at("noise", step);
                let noise = Noise::draw(rng, shape, config.dropout, kind);
                learner.descend(&self.loss(learner, &batch, &noise))?;
                step += 1;
            }
        }
        let tested = if held_out.is_empty() { order } else { held_out };
        let tested: Vec<&Graph> = tested.iter().map(|&i| &graphs[i]).collect();
        self.reconstruction(learner, &tested, vocabulary)
    }

    /// How much of graphs it gives back from their mean latents.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn reconstruction(
        &self,
        learner: &Learner,
        tested: &[&Graph],
        vocabulary: &Vocabulary,
    ) -> Result<Reconstruction> {
        let kind = learner.params.kind();
        let mut totals = [0.0; 5];
        for part in tested.chunks(PART) {
            let batch = Graphs::new(part.iter().copied(), vocabulary, kind);
            let [labels, edges] = no_grad(|| {
                let (mean, _) = self.encode(learner, &batch, Mode::Eval);
                let (labels, edges) = self.decode(learner, &batch, &mean);
                let labels = labels.argmax(-1, false).eq_tensor(&batch.labels);
                [labels, edges.gt(0.0).eq_tensor(&batch.joined.gt(0.5))]
            });
            let right = |t: &Tensor| Ok::<_, Error>(Vec::<bool>::try_from(t)?);
            let (labels, edges) = (right(&labels)?, right(&edges)?);
            let [mut first, mut first_pair] = [0; 2];
            for graph in part {
                let of_cell = |c: usize| graph.cells.iter().filter(|&&k| k == c).count();
                let cells = graph.cells.last().map_or(0, |c| c + 1);
                let pairs: usize = (0..cells)
                    .map(|c| of_cell(c) * of_cell(c).saturating_sub(1) / 2)
                    .sum();
                let own = &labels[first..first + graph.labels.len()];
                let own_pairs = &edges[first_pair..first_pair + pairs];
                let whole = own.iter().chain(own_pairs).all(|&right| right);
                let count = |right: &[bool]| right.iter().filter(|&&r| r).count() as f64;
                let add = [
                    count(own),
                    own.len() as f64,
                    count(own_pairs),
                    pairs as f64,
                    f64::from(whole),
                ];
                totals
                    .iter_mut()
                    .zip(add)
                    .for_each(|(total, more)| *total += more);
                (first, first_pair) = (first + own.len(), first_pair + pairs);
            }
        }
        Ok(Reconstruction {
            labels: totals[0] / totals[1],
            edges: totals[2] / totals[3],
            whole: totals[4] / tested.len() as f64,
        })
    }

    /// The latent of each graph, the mean over its vertices of their means: `[graphs, latent]`.
    pub fn embed(&self, learner: &Learner, graphs: &[Graph], vocabulary: &Vocabulary) -> Tensor {
        let parts = graphs.chunks(PART).map(|part| {
            let batch = Graphs::new(part, vocabulary, learner.params.kind());
            no_grad(|| batch.means(&self.encode(learner, &batch, Mode::Eval).0))
        });
        Tensor::cat(&parts.collect::<Vec<_>>(), 0)
    }
}

/// Graphs of a pass that learns nothing.
const PART: usize = 500;
