//! The state of a running search, and what most steps ask for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use crate::arch::{Choice, Genotype, Marginals, RelaxedArch};
use crate::batches::{Augment, Batch, Batches, DataPlan, Order, Split};
use crate::benchmark::{Benchmark, Score};
use crate::budget::{Budget, Work};
use crate::cost::{Asked, Limited, Limits};
use crate::dataset::{ImageData, Task};
use crate::distribution::ArchDistribution;
use crate::error::{Error, Result};
use crate::events::Meter;
use crate::gradients::differentiate;
use crate::listen::{Listener, Listeners, LossTaken, Phase, SharedListener, Span, Vector, Vectors};
use crate::optim::{FlatOptimizer, OptimizerConfig};
use crate::ranks::Ranks;
use crate::rng::{Rng, Streams};
use crate::space::SearchSpace;
use crate::supernet::{Supernet, SupernetOptions};

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

/// When the learning rate of a schedule moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tick {
    /// Once an epoch (DARTS).
    Epoch,
    /// Every step (NAS-Bench-201's search scripts).
    Step,
}

/// What the trainer tells a search.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Images a batch.
    pub batch_size: usize,
    /// Images a forward and backward pass at most; none means those of the batch.
    pub micro_batch: Option<usize>,
    /// Precision of [`Search::loss`].
    pub autocast: Autocast,
    /// Images a batch when nothing is differentiated.
    pub eval_batch_size: usize,
    /// Random changes of training images.
    pub augment: Augment,
    /// How batches of the architecture's half follow each other.
    pub val_order: Order,
    /// The optimizer of the weights.
    pub weights: OptimizerConfig,
    /// Epochs over which schedules run.
    pub schedule_epochs: u64,
    /// When rates move.
    pub schedule_by: Tick,
    /// Epochs in which the weights' rate grows to its full size.
    pub warmup_epochs: u64,
    /// Planned epochs.
    pub epochs: u64,
    /// What the search may spend.
    pub budget: Budget,
    /// Whether supernets use fused kernels where they have them.
    pub fused: bool,
    /// Whether several processes take the statistics of batch norm over all their parts of a batch.
    pub sync_batch_norm: bool,
}

impl Settings {
    /// What is asked of the supernet.
    fn supernet(&self, needs: &Needs<'_>) -> SupernetOptions {
        SupernetOptions {
            plain: needs.supernet.plain || !self.fused,
            ..needs.supernet.clone()
        }
    }
}

/// What a search must know of its strategy.
pub(crate) struct Needs<'a> {
    pub data: DataPlan,
    pub supernet: SupernetOptions,
    pub distribution: Option<&'a dyn ArchDistribution>,
    pub arch_optimizer: Option<&'a OptimizerConfig>,
    pub limits: Option<&'a Asked>,
}

/// Where a search stands. All of it is saved in checkpoints.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Clock {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Steps done in the current epoch.
    pub step_in_epoch: u64,
    /// Per split: passes done, and batches drawn in the current pass.
    pub drawn: BTreeMap<Split, (u64, u64)>,
    /// How often the weights were started afresh.
    pub restarts: u64,
    /// How often the architecture was started afresh (stages).
    pub stage: u64,
    /// Checkpoints written.
    pub saves: u64,
    /// First and number of the epochs that learning rates run their schedules over; none means all.
    #[serde(default)]
    pub schedule: Option<(u64, u64)>,
    /// What the learning rates of the weights are multiplied with; none means one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theta_rate: Option<f64>,
    /// Work done so far, also what was rolled back.
    #[serde(default)]
    pub work: Work,
}

/// A running search.
///
/// θ are the supernet's weights and φ the parameters of the distribution, each one flat vector.
pub struct Search {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    pub(crate) theta: Tensor,
    pub(crate) stats: Tensor,
    pub(crate) phi: Tensor,
    pub(crate) theta_optimizer: FlatOptimizer,
    pub(crate) phi_optimizer: Option<FlatOptimizer>,
    /// Per split: sums of loss × images, of correct images, of images.
    pub(crate) meters: BTreeMap<Split, Tensor>,
    pub(crate) scalars: BTreeMap<String, f64>,
    /// The processes that take every step together.
    pub(crate) ranks: Ranks,
    /// Work done when the current step began.
    pub(super) began: Work,
    /// Another number gives the strategy other draws: zero but in tests.
    salt: u64,
    /// Who is told of what it does.
    pub(super) listeners: Listeners,
    /// Up to when time is in the ledger; none before the first step of this process.
    pub(super) ticked: Option<Instant>,
    /// Coordinates of θ that do not move in this step, `[weights]`, bool.
    pub(super) frozen: Option<Tensor>,
    /// Scalars that go with every architecture whose loss is taken.
    pub(super) arch_scalars: BTreeMap<String, f64>,
    /// What changes the loss that the weights descend, the innermost last.
    pub(super) perturbations: Vec<Box<dyn Perturbation>>,
    pub(super) space: Box<dyn SearchSpace>,
    pub(super) limits: Option<Arc<Limits>>,
    /// What φ descends beside the gradient that comes next.
    pub(super) beside: Option<Tensor>,
    pub(super) supernet: Box<dyn Supernet>,
    /// The same network of operators that have derivatives of every order; made when it is first asked for.
    pub(super) plain: Option<Box<dyn Supernet>>,
    /// What the strategy asked of the supernet.
    pub(super) options: SupernetOptions,
    pub(super) benchmark: Option<Box<dyn Benchmark>>,
    pub(super) batches: Batches,
    pub(super) task: Task,
    pub(super) plan: DataPlan,
    pub(super) streams: Streams,
    pub(super) kind: Kind,
    pub(super) device: Device,
}

/// Moves the architecture that the weights descend at (SmoothDARTS, Chen & Hsieh 2020), or makes another loss of it
/// (Λ-DARTS, Movahedi et al. 2023). It composes with every strategy whose weights descend [`Search::weight_loss`].
pub trait Perturbation: Send {
    /// The architecture in the place of `arch`. Losses that it takes on `batch` are taken at the current weights.
    ///
    /// # Errors
    /// Those of [`Search::loss`].
    fn perturb(
        &mut self,
        search: &mut Search,
        arch: &RelaxedArch,
        batch: &Batch,
    ) -> Result<RelaxedArch>;

    /// The loss that the weights descend in the place of that at `arch`: the one at the moved architecture.
    ///
    /// # Errors
    /// Those of [`Search::loss`].
    fn loss(&mut self, search: &mut Search, arch: &RelaxedArch, batch: &Batch) -> Result<Tensor> {
        let moved = self.perturb(search, arch, batch)?;
        search.weight_loss(&moved, batch)
    }
}

/// What a search is put together from.
pub(crate) struct Parts<'a> {
    pub space: Box<dyn SearchSpace>,
    pub benchmark: Option<Box<dyn Benchmark>>,
    pub data: &'a ImageData,
    pub streams: Streams,
    pub kind: Kind,
    pub device: Device,
    pub ranks: Ranks,
}

impl Search {
    pub(crate) fn new(parts: Parts<'_>, needs: &Needs<'_>, settings: Settings) -> Result<Self> {
        let Parts {
            space,
            benchmark,
            data,
            streams,
            kind,
            device,
            ranks,
        } = parts;
        let (space, limits): (Box<dyn SearchSpace>, _) = match needs.limits {
            None => (space, None),
            Some(asked) => {
                let limited = Limited::new(space, asked, data.task)?;
                let limits = limited.limits();
                (Box::new(limited), Some(limits))
            }
        };
        let options = settings.supernet(needs);
        let supernet = space.supernet(data.task, &options)?;
        let batches = Batches::new(data, streams.child("data", 0), kind, device)?;
        let empty = || Tensor::zeros([0], (kind, device));
        let mut search = Self {
            theta_optimizer: settings.weights.build(&empty()),
            clock: Clock::default(),
            theta: empty(),
            stats: empty(),
            phi: empty(),
            phi_optimizer: None,
            meters: BTreeMap::new(),
            scalars: BTreeMap::new(),
            began: Work::default(),
            ranks,
            salt: 0,
            listeners: Listeners::default(),
            ticked: None,
            plan: needs.data,
            task: data.task,
            settings,
            frozen: None,
            arch_scalars: BTreeMap::new(),
            perturbations: vec![],
            space,
            limits,
            beside: None,
            supernet,
            plain: None,
            options,
            benchmark,
            batches,
            streams,
            kind,
            device,
        };
        search.settle_batches()?;
        search.start_weights()?;
        search.start_arch(needs);
        Ok(search)
    }

    /// Makes batches such that the supernet can be trained on every one of them.
    fn settle_batches(&mut self) -> Result<()> {
        self.batches.lone = self.supernet.takes_one_image();
        self.batches.require(match self.plan {
            DataPlan::Full => &[Split::Full],
            DataPlan::Halves => &[Split::Train, Split::Val],
            DataPlan::Steps(_) => &[],
        })
    }

    // ---- where it stands -------------------------------------------------------------------------------------

    /// Where the search stands.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The same, to be set to another moment by whoever steps a search by hand.
    pub fn clock_mut(&mut self) -> &mut Clock {
        &mut self.clock
    }

    /// Epochs done, the number of the current epoch while it runs.
    pub fn epoch(&self) -> u64 {
        self.clock.epoch
    }

    /// Planned epochs; with a budget, as many as it lasts for if it goes on being spent as it was so far.
    pub fn epochs(&self) -> u64 {
        let progress = self.progress();
        if self.budget().is_none() || progress <= 0.0 {
            return self.settings.epochs;
        }
        let within = self.clock.step_in_epoch as f64 / self.steps_per_epoch().max(1) as f64;
        let all = ((self.clock.epoch as f64 + within) / progress).round();
        (all as u64).max(self.clock.epoch + 1)
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        match self.plan {
            DataPlan::Full => self.batches.per_pass(Split::Full, self.settings.batch_size),
            DataPlan::Halves => self
                .batches
                .per_pass(Split::Train, self.settings.batch_size),
            DataPlan::Steps(n) => n,
        }
    }

    /// Images of a part of the data.
    pub(crate) fn images_of(&self, split: Split) -> u64 {
        self.batches.per_pass(split, 1)
    }

    /// The images and classes that it works on.
    pub fn task(&self) -> Task {
        self.task
    }

    /// The space.
    pub fn space(&self) -> &dyn SearchSpace {
        self.space.as_ref()
    }

    /// Limits on what the derived architecture may cost. The space is under them.
    pub fn limits(&self) -> Option<Arc<Limits>> {
        self.limits.clone()
    }

    /// Images a batch.
    pub fn batch_size(&self) -> usize {
        self.settings.batch_size
    }

    /// Kind of floating-point number.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where tensors live.
    pub fn device(&self) -> Device {
        self.device
    }

    // ---- who watches -------------------------------------------------------------------------------------------

    /// Tells a listener of what this search does, as long as somebody keeps it.
    pub fn listen(&mut self, listener: &SharedListener) {
        self.listeners.add(listener);
    }

    pub(super) fn tell(&self, what: impl FnMut(&mut dyn Listener)) {
        self.listeners.tell(what);
    }

    /// What happens until the span is dropped is part of a phase.
    pub(super) fn timed(&self, phase: Phase) -> Span {
        self.listeners.phase(phase)
    }

    pub(super) fn vectors(&self) -> Vectors<'_> {
        Vectors {
            theta: &self.theta,
            phi: &self.phi,
        }
    }

    // ---- randomness and data -----------------------------------------------------------------------------------

    /// Gives the strategy other draws from here on: what does not depend on them stays the same. For tests.
    pub fn salt(&mut self, salt: u64) {
        self.salt = salt;
    }

    /// The generator of the stream `name` at this step: the same at every call within the step.
    pub fn rng(&self, name: &str) -> Rng {
        self.streams
            .child("strategy", self.salt)
            .at(name, self.clock.step)
    }

    /// The streams that losses on a split draw the numbers of dropout, drop path and noise operations from in this step,
    /// of test images where it is none: for forward passes of the strategy's own.
    pub fn streams(&self, split: Option<Split>) -> Streams {
        self.streams
            .child(&format!("noise {split:?}"), self.clock.step)
    }

    // ---- the supernet ------------------------------------------------------------------------------------------

    /// θ, a leaf that requires gradients. The handle shares memory with the search's own.
    pub fn theta(&self) -> Tensor {
        self.theta.shallow_clone()
    }

    /// φ, a leaf that requires gradients. The handle shares memory with the search's own.
    pub fn phi(&self) -> Tensor {
        self.phi.shallow_clone()
    }

    /// Running statistics of the supernet, laid out by [`Supernet::stats_layout`]. The handle shares memory with the
    /// search's own: a pass in training mode updates them, unless it is given a copy.
    pub fn stats(&self) -> Tensor {
        self.stats.shallow_clone()
    }

    /// The supernet, for what [`Search::loss`] does not cover.
    pub fn supernet(&self) -> &dyn Supernet {
        self.supernet.as_ref()
    }

    /// Loss of `arch` at weights `theta` on a batch, a scalar with a graph. Loss and accuracy are metered. Dropout and
    /// the like draw the same numbers for all losses on one split within a step, so that differences between weights
    /// or architectures are not blurred.
    ///
    /// In micro-batches (`trainer.micro_batch`) it is the mean over them, each forwarded and differentiated here at
    /// once with respect to `theta` and the weights of `arch` where they require gradients: detach what you need no
    /// gradient of. Differentiating it twice is an error then.
    pub fn loss(&mut self, theta: &Tensor, arch: &RelaxedArch, batch: &Batch) -> Result<Tensor> {
        let arch = &self.with_scalars(arch);
        self.metered(theta, arch, batch, |search, theta, noise| {
            search.pass(theta, arch, batch, noise)
        })
    }

    /// A loss that is watched and metered.
    pub(super) fn metered(
        &mut self,
        theta: &Tensor,
        arch: &RelaxedArch,
        batch: &Batch,
        pass: impl FnOnce(&mut Self, &Tensor, Streams) -> Result<(Tensor, Tensor)>,
    ) -> Result<Tensor> {
        let _span = self.timed(Phase::Forward);
        self.check_cells(arch)?;
        let mut elsewhere = None;
        self.tell(|listener| elsewhere = elsewhere.take().or_else(|| listener.redirect(theta)));
        let theta = elsewhere.as_ref().unwrap_or(theta);
        let noise = self.streams(batch.split);
        let (loss, sums) = pass(self, theta, noise)?;
        if let Some(split) = batch.split {
            self.clock.work.images += batch.len() as u64;
            let meter = self.meters.remove(&split);
            self.meters.insert(
                split,
                meter.map_or_else(|| sums.shallow_clone(), |m| m + &sums),
            );
        }
        let taken = LossTaken {
            theta,
            arch,
            batch,
            loss: &loss,
        };
        self.tell(|listener| listener.loss(taken));
        Ok(loss)
    }

    /// Sets a named scalar that goes with every architecture whose loss is taken from here on: a rate of dropout, the
    /// weight of auxiliary skips. Set it anew in every step: it is no part of a checkpoint.
    pub fn set_scalar(&mut self, name: &str, value: f64) {
        self.arch_scalars.insert(name.to_owned(), value);
    }

    pub(super) fn with_scalars(&self, arch: &RelaxedArch) -> RelaxedArch {
        let mut same = arch.shallow_clone();
        for (name, value) in &self.arch_scalars {
            same.scalars.entry(name.clone()).or_insert(*value);
        }
        same
    }

    /// Cuts a square of side `side` out of training images with a probability, from the next batch on. Set it anew in
    /// every step: it is no part of a checkpoint.
    pub fn set_cutout(&mut self, side: i64, probability: f64) {
        self.settings.augment.cutout = side;
        self.settings.augment.cutout_probability = probability;
    }

    /// `[loss × images, correct, images]` on the device, without a synchronisation.
    pub(super) fn sums(&self, output: &Tensor, loss: &Tensor, batch: &Batch) -> Tensor {
        let n = batch.len() as f64;
        let correct = self
            .supernet
            .correct(output, &batch.labels)
            .to_kind(Kind::Double);
        let images = Tensor::full([], n, (Kind::Double, loss.device()));
        Tensor::stack(&[loss.to_kind(Kind::Double) * n, correct, images], 0)
    }

    /// Gradients of a scalar with respect to leaves; zero where it does not depend on one.
    pub fn gradients(&self, loss: &Tensor, leaves: &[&Tensor]) -> Result<Vec<Tensor>> {
        let _span = self.timed(Phase::Backward);
        self.tell_differentiated(loss, leaves);
        differentiate(loss, leaves)
    }

    pub(super) fn tell_differentiated(&self, loss: &Tensor, leaves: &[&Tensor]) {
        let of = [(Vector::Theta, &self.theta), (Vector::Phi, &self.phi)];
        let of = of.into_iter().filter_map(|(vector, own)| {
            let known = leaves.iter().any(|l| l.data_ptr() == own.data_ptr());
            known.then_some(vector)
        });
        let of: Vec<Vector> = of.collect();
        self.tell(|listener| listener.differentiated(loss, &of));
    }

    /// A new supernet and a new distribution, as the strategy now wants them.
    pub(crate) fn rebuild(&mut self, needs: &Needs<'_>, carry_weights: bool) -> Result<()> {
        let (old, old_theta) = (self.supernet.layout().clone(), self.theta.detach());
        self.options = self.settings.supernet(needs);
        self.supernet = self.space.supernet(self.task, &self.options)?;
        self.settle_batches()?;
        self.plain = None;
        self.clock.stage += 1;
        self.restart_weights()?;
        if carry_weights {
            let layout = self.supernet.layout();
            self.theta = leaf(no_grad(|| {
                layout.carry(&self.theta.detach(), &old, &old_theta)
            }));
        }
        self.start_arch(needs);
        Ok(())
    }

    // ---- what is found -----------------------------------------------------------------------------------------

    /// The weights that derivation goes by, on the host; none without a distribution.
    pub fn marginals(
        &self,
        distribution: Option<&dyn ArchDistribution>,
    ) -> Result<Option<Marginals>> {
        let Some(distribution) = distribution else {
            return Ok(None);
        };
        let matrices = no_grad(|| distribution.mean(&self.phi))?;
        Ok(Some(self.space.spec().to_marginals(&matrices)))
    }

    /// The relaxed architecture that computes exactly what is chosen.
    pub fn one_hot(&self, choice: &Choice) -> RelaxedArch {
        choice.one_hot(self.space.spec(), self.kind, self.device)
    }

    /// What the benchmark knows of an architecture; none without a benchmark or where a partial table lacks it.
    pub fn query(&self, genotype: &Genotype) -> Result<Option<Score>> {
        self.benchmark
            .as_ref()
            .map_or(Ok(None), |b| b.query(genotype))
    }

    /// The benchmark, if there is one.
    pub fn benchmark(&self) -> Option<&dyn Benchmark> {
        self.benchmark.as_deref()
    }

    /// Goes on without a benchmark.
    pub(crate) fn forget_benchmark(&mut self) {
        self.benchmark = None;
    }

    /// Reports a named number with the next progress event.
    pub fn log(&mut self, name: &str, value: f64) {
        self.scalars.insert(name.to_owned(), value);
    }

    /// Reads and clears the meters: the one synchronisation of a logging interval.
    pub(crate) fn take_meters(&mut self) -> Result<BTreeMap<String, Meter>> {
        let meters: BTreeMap<String, Meter> = std::mem::take(&mut self.meters)
            .into_iter()
            .map(|(split, sums)| (format!("{split:?}").to_lowercase(), meter(&sums)))
            .collect();
        match meters.iter().find(|(_, m)| !m.loss.is_finite()) {
            None => Ok(meters),
            Some((split, _)) => Err(Error::NotFinite {
                what: format!("the {split} loss"),
                step: self.clock.step,
                run: None,
            }),
        }
    }
}

/// `tensor` as a leaf that requires gradients.
pub(crate) fn leaf(tensor: Tensor) -> Tensor {
    tensor.detach().contiguous().set_requires_grad(true)
}

/// Means of `[loss × images, correct, images]`.
pub(super) fn meter(sums: &Tensor) -> Meter {
    let [loss, correct, images] = [0, 1, 2].map(|i| sums.double_value(&[i]));
    Meter {
        loss: loss / images,
        accuracy: correct / images,
        top5: None,
        images,
    }
}
