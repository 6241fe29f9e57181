//! ENAS (Pham, Guan, Zoph, Le, Dean 2018): an LSTM draws architectures, one decision after the other. In every epoch the
//! shared weights are trained on its draws, then it is trained by REINFORCE, the accuracy of its draws with the shared
//! weights being their reward.
//!
//! The controller is that of NAS-Bench-201's search script (Dong & Yang 2020): rows with the same candidates share an
//! embedding and an output layer, all cells one LSTM. The first paper's controller of micro cells chooses inputs by
//! attention, where this one has rows of topology; its dropout, its auxiliary head, the restarts of its learning rate and its
//! bias towards separable convolutions are not here (preset `micro` is the rest).
//!
//! Where codes differ: the reward holds the entropy of a draw's decisions as a number, as in the first paper's code
//! (NAS-Bench-201's script differentiates it, too, which lowers the entropy); the moving average moves with every draw, and
//! a draw is compared with what it was before it, so that the estimate is unbiased (the first paper's code moves it first,
//! which scales the gradient by the average's decay; NAS-Bench-201's script starts every draw of an epoch from the average
//! of the epoch before).

mod controller;

use std::collections::BTreeMap;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::bilevel;
use crate::selection::{self, Selected};
pub use controller::{Controller, Drawn, Shape};

/// Settings of ENAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnasConfig {
    /// Numbers in the state of the controller's LSTM.
    pub hidden: i64,
    /// Layers of the LSTM.
    pub layers: usize,
    /// Logits are c·tanh(z / T): the constant c.
    pub tanh_constant: f64,
    /// The temperature T.
    pub temperature: f64,
    /// Updates of the controller at the end of every epoch.
    pub controller_steps: u64,
    /// Architectures that an update is the mean of.
    pub aggregate: usize,
    /// Weight of the entropy in the reward.
    pub entropy: f64,
    /// Decay of the moving average of rewards.
    pub baseline_decay: f64,
    /// Architectures that are drawn and scored when the search ends.
    pub samples: usize,
    /// Batches of the validation half that each of them is scored on; 0 means all.
    pub eval_batches: usize,
    /// Optimizer of the controller.
    pub arch: OptimizerConfig,
}

register! {
    strategy "enas" => EnasConfig,
    summary: "ENAS: an LSTM draws architectures, trained by REINFORCE on their accuracy with shared weights",
    source: "Pham, Guan, Zoph, Le, Dean 2018, ICML, arXiv:1802.03268; settings of Dong, Yang 2020, ICLR (NAS-Bench-201)",
    defaults: r#"[strategy]
# Numbers in the state of the controller's LSTM, and in the embedding of a decision.
hidden = 32
# Layers of the LSTM.
layers = 2
# Logits z become tanh_constant * tanh(z / temperature), so that no probability gets too small.
tanh_constant = 2.5
# See above.
temperature = 5.0
# Updates of the controller at the end of every epoch; the shared weights rest meanwhile.
controller_steps = 50
# Architectures that an update is the mean of, each scored on a validation batch of its own.
aggregate = 20
# Weight of the entropy in the reward, which is otherwise the accuracy.
entropy = 1e-4
# Decay of the moving average that rewards are compared with.
baseline_decay = 0.99
# Architectures that are drawn when the search ends, and scored with the shared weights; the best one is the result.
samples = 100
# Batches (`trainer.eval_batch_size` images) of the validation half that each is scored on, the same for all; 0 means all.
eval_batches = 1

[strategy.arch]
# Optimizer of the controller: "sgd" or "adam".
optimizer = "adam"
# Learning rate at the start.
lr = 1e-3
# Learning rate at the end of a decaying schedule.
lr_min = 0.0
# "cosine", "linear" or "constant".
schedule = "constant"
# SGD: momentum.
momentum = 0.0
# SGD: Nesterov's form of momentum.
nesterov = false
# Adam: decay rates of the moments.
betas = [0.0, 0.999]
# Adam: added where it divides.
eps = 1e-3
# L2 decay.
weight_decay = 0.0
# Largest gradient norm; 0 means no clipping.
clip = 5.0

[trainer]
epochs = 150
"#,
    example: "nasfw run --strategy enas --space nasbench201 --set space.preset=small",
    presets: &[("micro", MICRO)],
    families: &[("nasbench201", NASBENCH201)],
}

/// The search script of NAS-Bench-201. The rate falls within the first 10 epochs and stays, as that script has it.
const NASBENCH201: &str = "[trainer]
epochs = 250
batch_size = 128
eval_batch_size = 128
schedule_epochs = 10
schedule_by = \"step\"

[trainer.weights]
lr = 0.05
lr_min = 5e-4
nesterov = true
weight_decay = 2.5e-4
";

/// The authors' search for cells on CIFAR-10, with one fall of the rate in the place of four.
const MICRO: &str = "[strategy]
tanh_constant = 1.1
temperature = 1.0
controller_steps = 30
aggregate = 10
baseline_decay = 0.999

[strategy.arch]
lr = 3.5e-3
clip = 0.0

[trainer]
epochs = 150
batch_size = 160

[trainer.weights]
lr = 0.05
lr_min = 5e-4
weight_decay = 1e-4
";

#[typetag::serde(name = "enas")]
impl StrategyConfig for EnasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let shape = Shape {
            hidden: self.hidden,
            layers: self.layers,
            tanh_constant: self.tanh_constant,
            temperature: self.temperature,
        };
        Ok(Box::new(Enas {
            config: self.clone(),
            controller: Controller::new(cx.spec, shape)?,
            state: State::default(),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.hidden", self.hidden, 1, 4096);
        v.range("strategy.layers", self.layers, 1, 16);
        v.range("strategy.tanh_constant", self.tanh_constant, 1e-3, 1e3);
        v.range("strategy.temperature", self.temperature, 1e-3, 1e3);
        v.range(
            "strategy.controller_steps",
            self.controller_steps,
            1,
            1_000_000,
        );
        v.range("strategy.aggregate", self.aggregate, 1, 100_000);
        v.at_least("strategy.entropy", self.entropy, 0.0);
        v.below("strategy.baseline_decay", self.baseline_decay, 0.0, 1.0);
        v.range("strategy.samples", self.samples, 1, 1_000_000);
        self.arch.validate("strategy.arch", v);
    }
}

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// The moving average of rewards; none before the first.
    #[serde(with = "nasfw_framework::lossless")]
    baseline: Option<f64>,
    /// What was selected at the end.
    selected: Option<Selected>,
}

struct Enas {
    config: EnasConfig,
    controller: Controller,
    state: State,
}

impl Enas {
    /// One update of the controller: −1/M Σ_m (R_m − b) ∇ log p(A_m), descended.
    fn update(&mut self, search: &mut Search, rng: &mut Rng) -> Result<()> {
        let phi = search.phi();
        let drawn = self.controller.draws(&phi, self.config.aggregate, rng)?;
        let accuracies = drawn.choices.iter().map(|choice| {
            let val = search.batch(Split::Val)?;
            accuracy(search, choice, &val)
        });
        let accuracies = Tensor::stack(&accuracies.collect::<Result<Vec<_>>>()?, 0);
        let rewards = accuracies.to_kind(Kind::Double) + &drawn.entropy * self.config.entropy;
        let advantages: Vec<f64> = on_host(&rewards)?
            .into_iter()
            .map(|r| self.compare(r))
            .collect();
        let advantages = Tensor::from_slice(&advantages);
        let advantages = advantages.to_kind(phi.kind()).to_device(phi.device());
        let loss = -(advantages * &drawn.log_prob).mean(phi.kind());
        let gradient = search.gradients(&loss, &[&phi])?;
        search.descend_phi(&gradient[0])?;
        search.log("reward", mean(&on_host(&accuracies.to_kind(Kind::Double))?));
        search.log("controller_entropy", mean(&on_host(&drawn.entropy)?));
        Ok(())
    }

    /// R − b, after which the moving average b moves towards R. The first reward is the first average.
    fn compare(&mut self, reward: f64) -> f64 {
        let before = self.state.baseline.unwrap_or(reward);
        let decay = self.config.baseline_decay;
        self.state.baseline = Some(decay * before + (1.0 - decay) * reward);
        reward - before
    }

    /// What a space makes of a drawn architecture.
    fn derived(&self, search: &Search, drawn: &Drawn, architecture: usize) -> Choice {
        let p = self.controller.alternatives(drawn, architecture);
        selection::derived(search, &drawn.choices[architecture], &p)
    }

    /// Draws architectures and keeps the one that is most accurate with the shared weights; of equals the first.
    fn select(&self, search: &Search) -> Result<Option<Selected>> {
        let (phi, n) = (search.phi().detach(), self.config.samples);
        let drawn = self
            .controller
            .draws(&phi, n, &mut search.rng("selection"))?;
        let choices = (0..n).map(|i| self.derived(search, &drawn, i));
        let ranked = selection::rank(search, choices, self.config.eval_batches)?;
        Ok(ranked.into_iter().next())
    }
}

/// Share of a batch that an architecture gets right with the shared weights, in evaluation mode: a scalar on the device.
fn accuracy(search: &Search, choice: &Choice, batch: &Batch) -> Result<Tensor> {
    let (theta, stats) = (search.theta(), search.stats());
    let weights = Weights {
        params: &theta,
        stats: &stats,
    };
    let (net, arch) = (search.supernet(), search.one_hot(choice));
    let noise = search.streams(Some(Split::Val));
    no_grad(|| {
        let output = net.forward(weights, &batch.images, &arch, Mode::Eval, noise)?;
        Ok(net.correct(&output, &batch.labels) / batch.len() as f64)
    })
}

fn on_host(numbers: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(numbers.to_device(Device::Cpu).contiguous())?)
}

fn mean(numbers: &[f64]) -> f64 {
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

impl Strategy for Enas {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. A step of w at an architecture that the controller draws, the only one computed.
        let choice = self
            .controller
            .draw(&search.phi(), &mut search.rng("weight step"))?;
        let train = search.batch(Split::Train)?;
        let path = search.one_hot(&choice);
        bilevel::descend_weights_at(search, &path, &train)?;

        // 2. When the epoch's images are through, the controller's turn.
        if search.clock().step_in_epoch + 1 == search.steps_per_epoch() {
            let mut rng = search.rng("controller");
            for _ in 0..self.config.controller_steps {
                self.update(search, &mut rng)?;
            }
            search.log("baseline", self.state.baseline.unwrap_or_default());
        }
        Ok(())
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        if search.is_last_epoch() {
            self.state.selected = self.select(search)?;
        }
        Ok(Control::Continue)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.controller)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn claims(&self) -> Claims {
        Claims {
            arch_gradient: ArchGradient::Other(
                "REINFORCE, whose reward is an accuracy and an entropy, not a loss",
            ),
            ..Claims::default()
        }
    }

    /// What was selected; before that, what the controller decides greedily.
    fn derive(&self, search: &Search) -> Result<Choice> {
        match &self.state.selected {
            Some(selected) => Ok(selected.choice.clone()),
            None => {
                let greedy = self.controller.greedy(&search.phi().detach())?;
                Ok(self.derived(search, &greedy, 0))
            }
        }
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        selection::metrics(self.state.selected.as_ref())
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        self.state = state.value()?;
        Ok(())
    }
}
