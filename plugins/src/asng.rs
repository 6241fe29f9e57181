//! ASNG-NAS (Akimoto, Shirakawa, Yoshinari, Uchida, Saito, Nishida 2019): the natural gradient of the expected utility of
//! drawn architectures in the probabilities θ of independent categorical variables, with a trust region that grows while the
//! gradients of successive steps agree, and shrinks when they don't.
//!
//! θ is kept as its logarithm, φ = ln θ, so that it is a distribution whatever its parameters are. What the authors' code
//! does and the paper leaves open is done here, too: utilities of ties are averaged, θ is kept above θ_min by taking what is
//! lacking from the others in proportion to what they have above it. Three things are readings: a row that keeps several
//! candidates is one categorical variable over its subsets; where θ_min = 1 / (d (K − 1)) would leave θ nowhere to go (fewer
//! than three variables), it is 1 / 2K; β is at most one, since the code takes a root of β (2 − β).

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::subsets::SubsetSoftmax;

/// Settings of ASNG-NAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsngConfig {
    /// Architectures λ that are drawn for a batch.
    pub samples: usize,
    /// Threshold α of the signal-to-noise ratio.
    pub threshold: f64,
    /// Trust region δ at the start.
    pub delta: f64,
}

register! {
    strategy "asng" => AsngConfig,
    summary: "ASNG-NAS: stochastic natural gradient with an adaptive step on categorical variables",
    source: "Akimoto, Shirakawa, Yoshinari, Uchida, Saito, Nishida 2019, ICML, arXiv:1905.08537",
    defaults: r#"[strategy]
# Architectures that are drawn for a batch: their ranks are their utilities, so that two is the least.
samples = 2
# How much larger than that of random directions the squared length of the accumulated gradient must be for the trust region
# to grow (the paper's alpha).
threshold = 1.5
# Trust region at the start: the length of a step, measured by Fisher's metric.
delta = 1.0

[trainer]
epochs = 100

[trainer.weights]
lr_min = 0.0
"#,
    example: "nasfw run --strategy asng --space nasbench201",
    families: &[("darts", CIFAR), ("robust", CIFAR)],
}

/// The authors' search on CIFAR-10.
const CIFAR: &str = "[trainer.augment]\ncutout = 16\n";

#[typetag::serde(name = "asng")]
impl StrategyConfig for AsngConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let categorical = SubsetSoftmax::new(cx.spec, 0.0)?;
        let rows = categorical.subsets.unfolded().rows();
        let sizes: Vec<usize> = rows.map(|(_, _, row)| row.candidates.len()).collect();
        Ok(Box::new(Asng {
            config: self.clone(),
            categorical,
            state: State::new(&sizes),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.samples", self.samples, 2, 1_000_000);
        v.range("strategy.threshold", self.threshold, 1e-3, 1e6);
        v.range("strategy.delta", self.delta, 1e-6, 1e3);
    }
}

/// What the adaptation of the trust region keeps from step to step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Accumulated directions s, one number for each free parameter.
    #[serde(with = "nasfw_framework::lossless")]
    pub s: Vec<f64>,
    /// What the squared length of s would be for random directions.
    #[serde(with = "nasfw_framework::lossless")]
    pub gamma: f64,
    /// The trust region is δ / Δ.
    #[serde(with = "nasfw_framework::lossless")]
    pub shrink: f64,
}

impl State {
    /// Before the first step on categorical variables of these sizes.
    pub fn new(sizes: &[usize]) -> Self {
        Self {
            s: vec![0.0; sizes.iter().map(|k| k - 1).sum()],
            gamma: 0.0,
            shrink: 1.0,
        }
    }
}

/// Utilities of losses by their ranks: 1/μ for the μ best, −1/μ for the μ worst, zero between, μ = ⌈λ/4⌉; equal losses
/// share the mean of theirs.
pub fn utilities(losses: &[f64]) -> Vec<f64> {
    let lambda = losses.len();
    let mu = lambda.div_ceil(4);
    let of_rank = |rank: usize| match (rank < mu, rank + mu >= lambda) {
        (true, false) => 1.0 / mu as f64,
        (false, true) => -1.0 / mu as f64,
        _ => 0.0,
    };
    losses
        .iter()
        .map(|loss| {
            let below = losses.iter().filter(|l| l.total_cmp(loss).is_lt()).count();
            let equal = losses.iter().filter(|l| l.total_cmp(loss).is_eq()).count();
            (below..below + equal).map(of_rank).sum::<f64>() / equal as f64
        })
        .collect()
}

/// One step of ASNG on categorical variables `theta` (`[variable][category]`), given which category every draw has of each
/// variable (`[draw][variable]`) and the draws' utilities. Does nothing where the utilities show nothing.
pub fn update(
    theta: &mut [Vec<f64>],
    state: &mut State,
    (threshold, delta): (f64, f64),
    draws: &[Vec<usize>],
    utilities: &[f64],
) {
    // The natural gradient: G = 1/λ Σ_i u_i (c_i − θ), zero-sum in each variable.
    let share = 1.0 / draws.len() as f64;
    let gradient: Vec<Vec<f64>> = theta
        .iter()
        .enumerate()
        .map(|(v, theta)| {
            let mut g = vec![0.0; theta.len()];
            for (draw, u) in draws.iter().zip(utilities) {
                for (k, (g, theta)) in g.iter_mut().zip(theta).enumerate() {
                    *g += share * u * (f64::from(u8::from(draw[v] == k)) - theta);
                }
            }
            g
        })
        .collect();

    // s = F^{1/2} G in the free parameters of each variable, which are all categories but the last.
    let direction: Vec<f64> = theta
        .iter()
        .zip(&gradient)
        .flat_map(|(theta, g)| {
            let free = theta.len() - 1;
            let (last, sum) = (theta[free], g[..free].iter().sum::<f64>());
            let shift = sum / (last + last.sqrt());
            let entry = move |(t, g): (&f64, &f64)| g / t.sqrt() + t.sqrt() * shift;
            theta[..free].iter().zip(g).map(entry).collect::<Vec<_>>()
        })
        .collect();
    let norm = direction.iter().map(|s| s * s).sum::<f64>().sqrt();
    // Of draws that are all alike, rounding alone is left.
    let size: f64 = utilities.iter().map(|u| share * u.abs()).sum();
    if norm <= 1e-12 * size || !norm.is_finite() {
        return;
    }

    // θ moves by δ/Δ, measured by Fisher's metric.
    let region = delta / state.shrink;
    let variables = theta.iter().filter(|t| t.len() > 1).count();
    for (theta, g) in theta.iter_mut().zip(&gradient) {
        for (t, g) in theta.iter_mut().zip(g) {
            *t += region * g / norm;
        }
        let least = floor(theta.len(), variables);
        project(theta, least);
    }

    // The trust region follows the signal-to-noise ratio.
    let beta = (region / (direction.len() as f64).sqrt()).min(1.0);
    let new = (beta * (2.0 - beta)).sqrt();
    for (s, d) in state.s.iter_mut().zip(&direction) {
        *s = (1.0 - beta) * *s + new * d / norm;
    }
    state.gamma = (1.0 - beta).powi(2) * state.gamma + beta * (2.0 - beta);
    let length = state.s.iter().map(|s| s * s).sum::<f64>();
    state.shrink *= (beta * (state.gamma - length / threshold)).exp();
}

/// θ_min of a variable with so many categories, one of `variables` that have a choice.
pub fn floor(categories: usize, variables: usize) -> f64 {
    let published = 1.0 / (variables * categories.saturating_sub(1)).max(1) as f64;
    match published * (categories as f64) < 1.0 {
        true => published,
        false => 0.5 / categories as f64,
    }
}

/// Puts θ back where every category has at least the probability `floor` and all sum to one: what is lacking is lifted to
/// the floor, and the others give of what they have above it, in proportion.
pub fn project(theta: &mut [f64], floor: f64) {
    let above: Vec<f64> = theta.iter().map(|t| (t - floor).max(0.0)).collect();
    let (has, may) = (above.iter().sum::<f64>(), 1.0 - floor * theta.len() as f64);
    for (t, above) in theta.iter_mut().zip(above) {
        *t = floor + above * may / has;
    }
    let sum: f64 = theta.iter().sum();
    theta.iter_mut().for_each(|t| *t /= sum);
}

struct Asng {
    config: AsngConfig,
    categorical: SubsetSoftmax,
    state: State,
}

impl Asng {
    /// c_1, …, c_λ ~ p_θ.
    fn draws(&self, search: &Search, stream: &str) -> Result<Vec<Choice>> {
        let (phi, mut rng) = (search.phi(), search.rng(stream));
        (0..self.config.samples)
            .map(|_| self.categorical.draw(&phi, &mut rng))
            .collect()
    }

    /// θ on the host, `[variable][category]`.
    fn theta(&self, phi: &Tensor) -> Result<Vec<Vec<f64>>> {
        let phi = phi.detach().to_kind(Kind::Double).to_device(Device::Cpu);
        let p = self.categorical.softmax.mean(&phi)?;
        let marginals = self.categorical.subsets.unfolded().to_marginals(&p);
        Ok(marginals.into_iter().flatten().collect())
    }

    /// φ = ln θ, `[parameters]`, zero in the padding of ragged rows.
    fn phi(&self, theta: &[Vec<f64>]) -> Tensor {
        let mut rows = theta.iter();
        let mut flat = vec![];
        for group in self.categorical.subsets.unfolded().groups() {
            for row in rows.by_ref().take(group.rows.len()) {
                flat.extend(row.iter().map(|t| t.ln()));
                flat.extend(std::iter::repeat_n(0.0, group.width() - row.len()));
            }
        }
        Tensor::from_slice(&flat)
    }
}

impl Strategy for Asng {
    /// Algorithm 1 of the paper, with one gradient step of the weights.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. Update w by descending 1/λ Σ_i ∇_w L_train(w, c_i).
        let train = search.batch(Split::Train)?;
        let mut mean = search.theta().detach().zeros_like();
        for choice in self.draws(search, "weight step")? {
            let loss = search.weight_loss(&search.one_hot(&choice), &train)?;
            let gradient = search.gradients(&loss, &[&search.theta()])?;
            mean += &gradient[0] / self.config.samples as f64;
        }
        search.descend_theta(&mean);

        // 2. Update θ by the natural gradient of the expected utility of other draws on validation images.
        let val = search.batch(Split::Val)?;
        let (drawn, w) = (
            self.draws(search, "architecture step")?,
            search.theta().detach(),
        );
        let losses = drawn.iter().map(|choice| {
            let arch = search.one_hot(choice);
            Ok(search.loss(&w, &arch, &val)?.to_kind(Kind::Double))
        });
        let losses = Tensor::stack(&losses.collect::<Result<Vec<_>>>()?, 0);
        let losses = Vec::<f64>::try_from(losses)?;
        let numbers = |choice| self.categorical.subsets.numbers(choice);
        let draws = drawn.iter().map(numbers).collect::<Result<Vec<_>>>()?;
        let mut theta = self.theta(&search.phi())?;
        let settings = (self.config.threshold, self.config.delta);
        let utilities = utilities(&losses);
        update(&mut theta, &mut self.state, settings, &draws, &utilities);
        let new = self.phi(&theta);
        search.update_phi(|phi| phi.copy_(&new));
        search.log("trust_region", self.config.delta / self.state.shrink);
        Ok(())
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.categorical)
    }

    /// The most probable architecture.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let mode = self.categorical.mode(&search.phi().detach())?;
        Ok(search.space().derive(&mode))
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let state: State = state.value()?;
        if state.s.len() != self.state.s.len() {
            return Err(Error::Invalid {
                what: "strategy state".into(),
                why: "its directions are not those of the space".into(),
            });
        }
        self.state = state;
        Ok(())
    }
}
