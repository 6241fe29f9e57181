//! The one trainer: its settings, and how a search is put together from a configuration. The loop is in `session.rs`;
//! the strategy owns the step.

use nasfw_kernels::precision;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use super::checkpoint::{self, Checkpoint};
use super::inputs::{self, Inputs};
use super::planner;
use super::session::Session;
use super::{Job, Outcome, Reopen, Reopened, Trainer};
use crate::batches::{Augment, Order};
use crate::benchmark::Benchmark;
use crate::budget::{Budget, Unit};
use crate::command::resume;
use crate::config::{RunConfig, Validator};
use crate::dataset::ImageData;
use crate::device;
use crate::error::{Error, Result};
use crate::optim::OptimizerConfig;
use crate::rng::Streams;
use crate::search::{Autocast, Parts, Search, Settings, Tick};
use crate::space::SearchSpace;
use crate::strategy::{BuildContext, Strategy};

/// Settings of the trainer: the section `[trainer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchTrainer {
    /// Epochs of search.
    pub epochs: u64,
    /// Images a batch.
    pub batch_size: usize,
    /// Images a forward and backward pass at most; 0 means those of the batch.
    pub micro_batch: usize,
    /// Bytes of memory that a step may need, from which the planner chooses the micro-batch; 0 means no limit.
    #[serde(deserialize_with = "planner::bytes")]
    pub memory: u64,
    /// Precision of convolutions and matrix products in the supernet.
    pub autocast: Autocast,
    /// Whether GPUs may round the factors of matrix products to TF32.
    pub tf32: bool,
    /// Whether GPUs compute only by kernels that give the same bits every time.
    pub deterministic: bool,
    /// Whether cuDNN measures which algorithms are the fastest.
    pub cudnn_benchmark: bool,
    /// Images a batch when nothing is differentiated.
    pub eval_batch_size: usize,
    /// Epochs over which learning rates run; 0 means `epochs`.
    pub schedule_epochs: u64,
    /// When learning rates move.
    pub schedule_by: Tick,
    /// Epochs in which the weights' learning rate grows, in equal steps, to what the schedule says.
    pub warmup_epochs: u64,
    /// How batches of the architecture's half follow each other.
    pub val_order: Order,
    /// Steps between two progress events.
    pub log_every: u64,
    /// Steps between two looks at the architecture, besides those at the end of every epoch; 0 means only those.
    pub architecture_every: u64,
    /// Steps between two checkpoints, besides those at the end of every epoch.
    pub checkpoint_every: u64,
    /// What the search may spend.
    pub budget: Budget,
    /// Whether supernets use fused kernels where they have them; they have first derivatives only.
    pub fused: bool,
    /// The optimizer of the supernet's weights.
    pub weights: OptimizerConfig,
    /// Random changes of training images.
    pub augment: Augment,
}

/// The most images of a batch.
const MOST_IMAGES: usize = 1 << 20;

/// `[trainer]`, with DARTS's settings (Liu et al. 2019) where a space or strategy says nothing else.
const DEFAULTS: &str = include_str!("defaults.toml");

crate::register! {
    trainer "search" => SearchTrainer,
    summary: "the one trainer: device, data, schedules, clipping, checkpoints, interrupts, events",
    source: "nasfw",
    defaults: DEFAULTS,
    example: "nasfw run --epochs 2 --set trainer.batch_size=32 --set trainer.weights.lr=0.05",
}

#[typetag::serde(name = "search")]
impl Trainer for SearchTrainer {
    fn search(&self, job: Job<'_>) -> Result<Outcome> {
        Session::open(self, job)?.run()
    }

    fn start(&self, config: &RunConfig) -> Result<(Search, Box<dyn Strategy>)> {
        let (search, strategy, _) = self.assemble(config, None, || {
            config.dataset.load(&config.common.source())
        })?;
        Ok((search, strategy))
    }

    fn reopen(&self, job: Reopen<'_>) -> Result<Reopened> {
        let restored = match job.checkpoint {
            Some(path) => checkpoint::read(path, job.fingerprint)?,
            None => checkpoint::newest(job.run, job.fingerprint)?.ok_or_else(|| Error::Run {
                path: job.run.to_owned(),
                problem: "this run has no checkpoint yet".into(),
                help: format!("go on with `{}`", resume(job.run)),
            })?,
        };
        let (mut search, strategy, data) =
            self.assemble(job.config, Some(&restored), || inputs::images(&job))?;
        let choice = restored.reopen(&mut search, strategy.as_ref())?;
        Ok(Reopened {
            choice,
            search,
            inputs: Inputs::of(job.config.dataset.as_ref(), &data),
        })
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("trainer.epochs", self.epochs, 1);
        // A batch of one image has no variance, which batch norm divides by.
        v.range("trainer.batch_size", self.batch_size, 2, MOST_IMAGES);
        if self.micro_batch > 0 && self.memory > 0 {
            v.problem(
                "trainer.memory",
                "the micro-batch is chosen already: set either `trainer.micro_batch` or `trainer.memory` to 0",
            );
        }
        if self.deterministic && self.cudnn_benchmark {
            v.problem(
                "trainer.cudnn_benchmark",
                "it chooses kernels by stopwatch, so that results don't repeat: set `trainer.deterministic = false` too",
            );
        }
        v.range(
            "trainer.eval_batch_size",
            self.eval_batch_size,
            1,
            MOST_IMAGES,
        );
        v.at_least("trainer.log_every", self.log_every, 1);
        v.at_least("trainer.checkpoint_every", self.checkpoint_every, 1);
        v.range(
            "trainer.augment.crop_padding",
            self.augment.crop_padding,
            0,
            64,
        );
        v.range("trainer.augment.cutout", self.augment.cutout, 0, 4096);
        v.range(
            "trainer.augment.cutout_probability",
            self.augment.cutout_probability,
            0.0,
            1.0,
        );
        for (strength, most) in self
            .augment
            .color_jitter
            .into_iter()
            .zip([1.0, 1.0, 1.0, 0.5])
        {
            v.range("trainer.augment.color_jitter", strength, 0.0, most);
        }
        match self.budget {
            Budget {
                unit: Unit::None,
                amount: 0,
            } => {}
            Budget {
                unit: Unit::None, ..
            } => v.problem(
                "trainer.budget.amount",
                "an amount of what? say so with `trainer.budget.unit`: steps, images, seconds or simulated",
            ),
            Budget { amount, .. } => v.at_least("trainer.budget.amount", amount, 1),
        }
        self.weights.validate("trainer.weights", v);
    }
}

impl SearchTrainer {
    /// Search, strategy and data; as they were then if there is a checkpoint, but for weights. Data are loaded last.
    pub(crate) fn assemble(
        &self,
        config: &RunConfig,
        restored: Option<&Checkpoint>,
        load: impl FnOnce() -> Result<ImageData>,
    ) -> Result<(Search, Box<dyn Strategy>, ImageData)> {
        let common = &config.common;
        let device = device::choose(&common.device)?;
        if common.threads > 0 {
            tch::set_num_threads(i32::try_from(common.threads).unwrap_or(i32::MAX));
        }
        precision::set_tf32(self.tf32);
        precision::set_deterministic(self.deterministic);
        tch::Cuda::cudnn_set_benchmark(self.cudnn_benchmark);
        if self.autocast != Autocast::None && common.kind() != Kind::Float {
            return Err(Error::Incompatible {
                what: "trainer.autocast".into(),
                why: "autocast leaves numbers of 64 bits as they are".into(),
                help: "use `--set precision=float`, or `--set trainer.autocast=none`".into(),
            });
        }
        let mut plugins = Plugins::build(self, config, device)?;
        if let Some(checkpoint) = restored {
            let restored = plugins.strategy.restore(checkpoint.strategy_state());
            restored
                .map_err(|e| checkpoint.broken(format!("the strategy can't use its state: {e}")))?;
        }
        let data = load()?;
        let mut settings = self.settings();
        if self.memory > 0 && restored.is_none() {
            let size = planner::largest(self.batch_size, self.memory, |size| {
                let plugins = Plugins::build(self, config, device)?;
                let settings = Settings {
                    micro_batch: Some(size),
                    ..settings.clone()
                };
                let (search, mut strategy) = plugins.search(config, &data, device, settings)?;
                planner::peak_of_step(search, strategy.as_mut())
            })?;
            settings.micro_batch = Some(size);
        }
        let (search, strategy) = plugins.search(config, &data, device, settings)?;
        Ok((search, strategy, data))
    }

    fn settings(&self) -> Settings {
        Settings {
            batch_size: self.batch_size,
            micro_batch: (self.micro_batch > 0).then_some(self.micro_batch),
            autocast: self.autocast,
            eval_batch_size: self.eval_batch_size,
            augment: self.augment,
            val_order: self.val_order,
            weights: self.weights.clone(),
            schedule_epochs: if self.schedule_epochs == 0 {
                self.epochs
            } else {
                self.schedule_epochs
            },
            schedule_by: self.schedule_by,
            warmup_epochs: self.warmup_epochs,
            epochs: self.epochs,
            budget: self.budget,
            fused: self.fused,
        }
    }
}

/// The parts of a search that come from plugins.
struct Plugins {
    space: Box<dyn SearchSpace>,
    strategy: Box<dyn Strategy>,
    benchmark: Option<Box<dyn Benchmark>>,
}

impl Plugins {
    fn build(trainer: &SearchTrainer, config: &RunConfig, device: Device) -> Result<Self> {
        let space = config.space.build()?;
        let strategy = config.strategy.build(BuildContext {
            spec: space.spec(),
            streams: Streams::new(config.common.seed).child("build", 0),
            kind: config.common.kind(),
            device,
            epochs: trainer.epochs,
        })?;
        let benchmark = match &config.benchmark {
            Some(b) => b.open(&config.space_section()?)?,
            None => None,
        };
        Ok(Self {
            space,
            strategy,
            benchmark,
        })
    }

    fn search(
        self,
        config: &RunConfig,
        data: &ImageData,
        device: Device,
        settings: Settings,
    ) -> Result<(Search, Box<dyn Strategy>)> {
        let parts = Parts {
            space: self.space,
            benchmark: self.benchmark,
            data,
            streams: Streams::new(config.common.seed),
            kind: config.common.kind(),
            device,
        };
        let search = Search::new(parts, self.strategy.as_ref(), settings)?;
        Ok((search, self.strategy))
    }
}
