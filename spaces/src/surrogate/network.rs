//! The network of a model: an embedding of counted features, two hidden layers, and a normal distribution to end with.

use nasfw_framework::optim::{OptimizerConfig, Rule};
use nasfw_framework::prelude::*;
use nasfw_framework::schedule::Shape;
use rand::seq::SliceRandom;
use tch::{Device, Kind, Tensor, no_grad};

/// Units of the hidden layers.
pub const UNITS: i64 = 64;
/// Rate of Adam at the start; it falls to zero by a cosine.
const LR: f64 = 4e-3;
/// Passes over the rows, at least.
const PASSES: usize = 10;
/// Steps, at least.
const STEPS: usize = 300;
/// Rows of a step: more where there are more rows.
const BATCH: [usize; 2] = [16, 128];

/// The features of a row by their places in the vocabulary, with what the network multiplies each by.
pub type Bag = Vec<(i64, f32)>;

/// Some rows' features side by side.
#[derive(Debug)]
pub struct Bags {
    /// Places in the vocabulary, all rows one after the other: `[n]`, int64.
    places: Tensor,
    /// What each is multiplied by: `[n]`.
    amounts: Tensor,
    /// Where each row begins: `[rows]`, int64.
    starts: Tensor,
}

impl Bags {
    /// Puts rows side by side.
    pub fn new<'a>(bags: impl IntoIterator<Item = &'a Bag>) -> Self {
        let (mut places, mut amounts, mut starts) = (vec![], vec![], vec![]);
        for bag in bags {
            starts.push(places.len() as i64);
            places.extend(bag.iter().map(|f| f.0));
            amounts.extend(bag.iter().map(|f| f.1));
        }
        Self {
            places: Tensor::from_slice(&places),
            amounts: Tensor::from_slice(&amounts),
            starts: Tensor::from_slice(&starts),
        }
    }
}

/// Layout of the network's parameters, and how it computes: with e the sum of the features' embeddings,
/// h₁ = ReLU(LayerNorm(e + b)), h₂ = ReLU(W₂h₁ + b₂), h₃ = h₂ + ReLU(W₃h₂ + b₃); mean and log-variance are linear in h₃.
#[derive(Debug)]
pub struct Net {
    layout: ParamLayout,
    embedding: ParamId,
    shift: ParamId,
    norm: [ParamId; 2],
    hidden: [[ParamId; 2]; 2],
    out: [ParamId; 2],
}

impl Net {
    /// Of a vocabulary of so many features.
    pub fn new(features: i64) -> Self {
        let mut layout = ParamLayout::new();
        let embedding = layout.add("embedding", &[features, UNITS], Init::Normal { std: 0.15 });
        let shift = layout.add("shift", &[UNITS], Init::Zeros);
        let norm = [("norm.weight", Init::Ones), ("norm.bias", Init::Zeros)]
            .map(|(name, init)| layout.add(name, &[UNITS], init));
        let mut linear = |name: &str, outputs: i64| {
            let init = Init::fan_in(UNITS);
            let weight = layout.add(format!("{name}.weight"), &[outputs, UNITS], init);
            [weight, layout.add(format!("{name}.bias"), &[outputs], init)]
        };
        let hidden = [linear("hidden.1", UNITS), linear("hidden.2", UNITS)];
        let out = linear("out", 2);
        Self {
            layout,
            embedding,
            shift,
            norm,
            hidden,
            out,
        }
    }

    /// Number of parameters.
    pub fn numel(&self) -> i64 {
        self.layout.numel()
    }

    /// Mean and log-variance, `[rows]` each.
    fn forward(&self, params: &Tensor, bags: &Bags) -> Result<[Tensor; 2]> {
        const SUM: i64 = 0;
        let p = self.layout.views(params);
        let (embedded, ..) = Tensor::f_embedding_bag(
            &p[self.embedding],
            &bags.places,
            &bags.starts,
            false,
            SUM,
            false,
            Some(&bags.amounts),
            false,
        )?;
        let [weight, bias] = self.norm.map(|id| &p[id]);
        let shifted = embedded + &p[self.shift];
        let first = shifted
            .layer_norm([UNITS], Some(weight), Some(bias), 1e-5, false)
            .relu();
        let linear =
            |x: &Tensor, [weight, bias]: [ParamId; 2]| x.linear(&p[weight], Some(&p[bias]));
        let second = linear(&first, self.hidden[0]).relu();
        let third = &second + linear(&second, self.hidden[1]).relu();
        let out = linear(&third, self.out);
        Ok([0, 1].map(|column| out.select(1, column)))
    }

    /// Teaches a fresh network rows and their scores. The mean descends the squared error, the variance the likelihood of
    /// what is left of it. Parameters come back rounded to 16 bits, as files hold them.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn fit(&self, bags: &[&Bag], scores: &[f32], streams: Streams) -> Result<Tensor> {
        let n = bags.len();
        let batch = (n / 64).clamp(BATCH[0], BATCH[1]);
        let per_pass = n.div_ceil(batch);
        let passes = PASSES.max(STEPS.div_ceil(per_pass.max(1)));
        let rate = |step: usize| {
            let done = step as f64 / (passes * per_pass) as f64;
            LR * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
        };
        let mut params = self
            .layout
            .init(streams, Kind::Float, Device::Cpu)
            .set_requires_grad(true);
        let mut adam = ADAM.build(&params);
        let mut order: Vec<usize> = (0..n).collect();
        for pass in 0..passes {
            order.shuffle(&mut streams.at("order", pass as u64));
            for (k, part) in order.chunks(batch).enumerate() {
                let bags = Bags::new(part.iter().map(|&i| bags[i]));
                let wanted: Vec<f32> = part.iter().map(|&i| scores[i]).collect();
                let [mean, log_variance] = self.forward(&params, &bags)?;
                let squares = (mean - Tensor::from_slice(&wanted)).square();
                let left = squares.detach() * (-&log_variance).exp();
                let loss = (squares + (left + log_variance) * 0.5).mean(Kind::Float);
                let gradient = Tensor::f_run_backward(&[loss], &[&params], false, false)?;
                adam.step(&mut params, &gradient[0], rate(pass * per_pass + k));
            }
        }
        Ok(params.detach().to_kind(Kind::Half).to_kind(Kind::Float))
    }

    /// Mean and variance of each row's score.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn predict(&self, params: &Tensor, bags: &Bags) -> Result<Vec<(f64, f64)>> {
        let [mean, log_variance] = no_grad(|| self.forward(params, bags))?;
        let list = |x: Tensor| Vec::<f64>::try_from(&x.to_kind(Kind::Double).contiguous());
        let (means, variances) = (list(mean)?, list(log_variance.exp())?);
        Ok(means.into_iter().zip(variances).collect())
    }
}

/// How networks learn.
const ADAM: OptimizerConfig = OptimizerConfig {
    optimizer: Rule::Adam,
    lr: LR,
    lr_min: 0.0,
    schedule: Shape::Cosine,
    momentum: 0.0,
    nesterov: false,
    betas: [0.9, 0.999],
    eps: 1e-8,
    weight_decay: 0.0,
    clip: 5.0,
};
