//! Settings of the one trainer, and how a search is put together from a configuration. The loop is in `session.rs`; the
//! strategy owns the step.

use nasfw_kernels::precision;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

use super::checkpoint::Checkpoint;
use super::planner;
use crate::batches::{Augment, Order};
use crate::benchmark::Benchmark;
use crate::budget::Budget;
use crate::dataset::ImageData;
use crate::device;
use crate::error::{Error, Result};
use crate::job::RunConfig;
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
        let search = Search::new(parts, &self.strategy.needs(), settings)?;
        Ok((search, self.strategy))
    }
}
