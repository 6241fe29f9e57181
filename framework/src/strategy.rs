//! Strategies: how to search.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::{Kind, Tensor};

use crate::arch::{ArchSpec, Choice};
use crate::cost::{Asked, Named};
use crate::distribution::ArchDistribution;
use crate::error::{Error, Result};
use crate::front::Archive;
use crate::optim::OptimizerConfig;
use crate::rng::Streams;
use crate::search::{Needs, Search};
use crate::settings::Validator;
use crate::supernet::SupernetOptions;

pub use crate::batches::{DataPlan, Split};
pub use crate::events::Picture;

/// What a strategy asks of the trainer at the end of an epoch (hook H13). Pruned and frozen edges need no command:
/// they are masks in the strategy's own samples.
#[derive(Debug, Clone, PartialEq)]
pub enum Control {
    /// Go on.
    Continue,
    /// End the search here, with the reason for the report.
    Stop(String),
    /// Change training settings from the next epoch on.
    Set(Changes),
    /// Go back to the end of an earlier epoch (its weights, architecture and optimizers), then change settings. The
    /// strategy's own state stays, so that it knows that it went back. Needs [`Strategy::needs_history`].
    Rollback {
        /// Number of epochs that are done in the state to go back to.
        epoch: u64,
        /// What to change after going back.
        changes: Changes,
    },
    /// Build a new supernet and a new distribution for the next stage, as [`Strategy::supernet_options`] and
    /// [`Strategy::distribution`] now say.
    Rebuild {
        /// Keep weights whose names and shapes stay the same; otherwise everything starts afresh.
        carry_weights: bool,
    },
}

/// Changes of training settings; none means no change.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Changes {
    /// Images a batch.
    pub batch_size: Option<usize>,
    /// L2 decay of the weights.
    pub weight_decay: Option<f64>,
}

/// State of a strategy beyond φ and the optimizers, for checkpoints: small numbers as JSON, tensors by name.
#[derive(Debug, Default)]
pub struct StrategyState {
    /// Anything small.
    pub values: Value,
    /// Anything large.
    pub tensors: BTreeMap<String, Tensor>,
}

impl StrategyState {
    /// A state that is a small value. Numbers in it that may not be finite come back only with
    /// `#[serde(with = "nasfw_framework::lossless")]`.
    ///
    /// # Errors
    /// A value that JSON can't hold.
    pub fn of(value: &impl Serialize) -> Result<Self> {
        Ok(Self {
            values: serde_json::to_value(value).map_err(Self::wrong)?,
            tensors: BTreeMap::new(),
        })
    }

    /// The small value of [`StrategyState::of`].
    ///
    /// # Errors
    /// A value of another form.
    pub fn value<T: DeserializeOwned>(self) -> Result<T> {
        serde_json::from_value(self.values).map_err(Self::wrong)
    }

    /// The state of a wrapper: a small value of its own beside the state of the strategy that it wraps.
    ///
    /// # Errors
    /// A value that JSON can't hold.
    pub fn wrap(own: &impl Serialize, base: Self) -> Result<Self> {
        let values = Self::of(&(own, base.values))?.values;
        Ok(Self {
            values,
            tensors: base.tensors,
        })
    }

    /// The two parts of [`StrategyState::wrap`].
    ///
    /// # Errors
    /// A value of another form.
    pub fn unwrap<T: DeserializeOwned>(self) -> Result<(T, Self)> {
        let tensors = self.tensors;
        let (own, values) = serde_json::from_value(self.values).map_err(Self::wrong)?;
        Ok((own, Self { values, tensors }))
    }

    fn wrong(e: serde_json::Error) -> Error {
        Error::Invalid {
            what: "strategy state".into(),
            why: e.to_string(),
        }
    }
}

/// What the gradient is the gradient of that a strategy hands to [`Search::descend_phi`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArchGradient {
    /// Of the losses that it is taken from, at the weights that they were computed at: ∇_φ L(θ, φ). Of several losses
    /// on parts of a batch, of their mean over images.
    #[default]
    Direct,
    /// Of the validation loss after one virtual step of the weights' optimizer on the training batch:
    /// ∇_φ L_val(θ − ξ ∇_θ L_train(θ, φ), φ) (DARTS, Liu et al. 2019, equations 6 and 7).
    Unrolled,
    /// An unbiased estimate of ∇_φ E[L(θ, A)], A a discrete draw of the distribution (score functions, REINFORCE).
    Score,
    /// Something else on purpose, with the reason: a straight-through estimate, say.
    Other(&'static str),
}

/// A loss that a step differentiated for the weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TakenLoss {
    /// Its value, a mean over images.
    pub value: f64,
    /// Images of its batch.
    pub images: f64,
}

/// A function of losses.
type Function = dyn Fn(&[TakenLoss]) -> f64 + Send + Sync;

/// What several losses amount to: a function of them that the weights descend.
#[derive(Clone)]
pub struct Objective(Arc<Function>);

impl Objective {
    /// The function, as the paper has it: the conformance suite takes finite differences of it, so that nothing of the
    /// step's own arithmetic belongs here.
    pub fn new(of: impl Fn(&[TakenLoss]) -> f64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(of))
    }

    /// Its value at the losses of a step, in the order in which they were computed.
    pub fn at(&self, losses: &[TakenLoss]) -> f64 {
        (self.0)(losses)
    }
}

impl std::fmt::Debug for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Objective")
    }
}

/// What the gradient is the gradient of that a strategy hands to [`Search::descend_theta`].
#[derive(Debug, Clone, Default)]
pub enum WeightGradient {
    /// Of the losses that were differentiated for it, all of them: of several, of their mean over images.
    #[default]
    Mean,
    /// Of this function of them. Importance weights are one: Σ_k ω_k ∇L_k with ω = softmax(−L) is the gradient of
    /// −log Σ_k exp(−L_k), the likelihood of a batch under several architectures (PARSEC, Casale et al. 2019).
    Of(Objective),
    /// Something else on purpose, with the reason.
    Other(&'static str),
}

/// A number that a strategy logs, and what it must be at both ends of a search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Endpoints {
    /// The name given to [`Search::log`].
    pub scalar: &'static str,
    /// Its value in the first step.
    pub start: f64,
    /// Its value in the last step, or what it comes to within one step's change.
    pub end: f64,
}

/// What a strategy says of its step. The conformance suite holds it to that (the crate `nasfw-conformance`).
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// What φ descends.
    pub arch_gradient: ArchGradient,
    /// What the weights descend.
    pub weight_gradient: WeightGradient,
    /// The weights descend at an architecture that was moved so as to raise the loss.
    pub adversarial: bool,
    /// Published endpoints of the strategy's own schedules.
    pub schedules: Vec<Endpoints>,
}

/// A search algorithm.
///
/// The trainer calls [`Strategy::step`] once per step and does the rest: data, schedules, clipping, checkpoints,
/// interrupts, events. A step takes what it needs from [`Search`]: batches, the loss, gradients, the two optimizers,
/// seeded randomness, a benchmark. Strategies without a supernet implement the same method and never ask for a loss.
pub trait Strategy: Send {
    /// One step of the algorithm.
    fn step(&mut self, search: &mut Search) -> Result<()>;

    /// The strategy that this one wraps, which answers everything that the wrapper leaves open.
    fn base(&self) -> Option<&dyn Strategy> {
        None
    }

    /// The same, to be changed.
    fn base_mut(&mut self) -> Option<&mut dyn Strategy> {
        None
    }

    /// The learned distribution, if there is one.
    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        self.base()?.distribution()
    }

    /// The optimizer of φ. Needed when there is a distribution.
    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        self.base()?.arch_optimizer()
    }

    /// What the step is to be held to.
    fn claims(&self) -> Claims {
        self.base().map(|b| b.claims()).unwrap_or_default()
    }

    /// Which images to train on.
    fn data(&self) -> DataPlan {
        self.base().map_or(DataPlan::Halves, |b| b.data())
    }

    /// What the supernet must offer. Asked once before the search and again at every [`Control::Rebuild`].
    fn supernet_options(&self) -> SupernetOptions {
        self.base()
            .map(|b| b.supernet_options())
            .unwrap_or_default()
    }

    /// Whether [`Control::Rollback`] may be asked for, so that a checkpoint of every epoch is kept.
    fn needs_history(&self) -> bool {
        self.base().is_some_and(|b| b.needs_history())
    }

    /// Limits on what the derived architecture may cost. The search's space is under them: what it derives and draws meets
    /// them ([`crate::cost::Limited`]).
    fn limits(&self) -> Option<&Asked> {
        self.base()?.limits()
    }

    /// Costs that it counts itself, beside those of limits. A run keeps what tells their tables apart, and says which of them are
    /// predicted.
    fn costs(&self) -> Named {
        self.base().map(|b| b.costs()).unwrap_or_default()
    }

    /// Called before the first step of an epoch.
    fn epoch_start(&mut self, search: &mut Search) -> Result<()> {
        self.base_mut().map_or(Ok(()), |b| b.epoch_start(search))
    }

    /// Called after the last step of an epoch.
    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        self.base_mut()
            .map_or(Ok(Control::Continue), |b| b.epoch_end(search))
    }

    /// The architecture found so far. The default puts the distribution's mean through the space's own rule.
    fn derive(&self, search: &Search) -> Result<Choice> {
        if let Some(base) = self.base() {
            return base.derive(search);
        }
        match search.marginals(self.distribution())? {
            Some(marginals) => Ok(search.space().derive(&marginals)),
            None => Err(Error::Plugin {
                plugin: "strategy".into(),
                message: "it has no distribution, so it must implement `derive`".into(),
            }),
        }
    }

    /// Figures of the strategy's own for the reports after every epoch and for the result, beside a benchmark's: the
    /// test accuracy of what it trains, say. They must follow from [`Strategy::state`].
    fn metrics(&self) -> BTreeMap<String, f64> {
        self.base().map(|b| b.metrics()).unwrap_or_default()
    }

    /// Of a strategy with several aims, all that it has looked at: the result keeps the front, and reports the hypervolume. It must
    /// follow from [`Strategy::state`], and [`Strategy::derive`] give its [`Archive::best`].
    fn front(&self) -> Option<&Archive> {
        self.base()?.front()
    }

    /// Matrices that show the strategy's insides, by name, for the figures of a report: before training and after
    /// every epoch.
    fn pictures(&self, search: &Search) -> Result<BTreeMap<String, Picture>> {
        self.base()
            .map_or_else(|| Ok(BTreeMap::new()), |b| b.pictures(search))
    }

    /// What a checkpoint must keep beyond φ and the optimizers.
    fn state(&self) -> Result<StrategyState> {
        self.base()
            .map_or_else(|| Ok(StrategyState::default()), |b| b.state())
    }

    /// Puts back what [`Strategy::state`] gave.
    fn restore(&mut self, state: StrategyState) -> Result<()> {
        self.base_mut().map_or(Ok(()), |b| b.restore(state))
    }
}

impl dyn Strategy + '_ {
    /// What a search must know of its strategy.
    pub(crate) fn needs(&self) -> Needs<'_> {
        Needs {
            data: self.data(),
            supernet: self.supernet_options(),
            distribution: self.distribution(),
            arch_optimizer: self.arch_optimizer(),
            limits: self.limits(),
        }
    }
}

/// What a strategy is built from.
#[derive(Debug, Clone, Copy)]
pub struct BuildContext<'a> {
    /// What there is to decide.
    pub spec: &'a ArchSpec,
    /// Randomness of the start: fixed noise inputs and the like.
    pub streams: Streams,
    /// Kind of floating-point number.
    pub kind: Kind,
    /// Where tensors live.
    pub device: tch::Device,
    /// Planned epochs.
    pub epochs: u64,
}

/// The typed settings of a strategy, as they stand in the configuration and are kept with a run.
#[typetag::serde(tag = "name")]
pub trait StrategyConfig: Send + Sync + std::fmt::Debug {
    /// Builds the strategy.
    ///
    /// # Errors
    /// [`Error::Incompatible`] for a space that it can't search, with the reason.
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>>;

    /// The plugin's name, as people know it.
    fn name(&self) -> &str {
        self.typetag_name()
    }

    /// Checks ranges before anything is built.
    fn validate(&self, _v: &mut Validator) {}

    /// Whether it looks architectures up, so that a search without a benchmark is refused before it begins.
    fn needs_benchmark(&self) -> bool {
        false
    }
}
