//! How long steps take: those of strategies beside those of the bare supernet, step by step in turn in one process.
//!
//! Three kinds of step are measured. The *plain* one is a forward pass with all candidates at fixed weights of the
//! architecture, the loss, the backward pass with respect to the supernet's weights, and their update, always on the
//! same batch. The *joint* one also takes the gradient of the architecture's logits. A *strategy's* is whatever the
//! trainer runs as its step: data and augmentation, its samples, losses, backward passes and updates.

mod machine;
mod macs;
mod phases;
mod plain;
mod report;

use std::sync::{Arc, Mutex};
use std::time::Instant;

use nasfw_kernels::{memory, profile};
use tch::{Device, Kind, Tensor};

pub use machine::Machine;
pub use macs::supernet_macs;
pub use phases::Phases;
pub use report::{Operators, Plain, Report, SinglePath, Timing};

use crate::device::{self, synchronise};
use crate::error::{Error, Result};
use crate::job::RunConfig;
use crate::listen::{SharedListener, lock};
use crate::network::NetworkOptions;
use crate::search::Search;
use crate::strategy::Strategy;
use crate::trainer::advance;
use phases::PhaseClock;
use plain::PlainStep;
use report::{median, median_ratio};

/// Steps to take of every kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// Timed steps, at least one.
    pub timed: usize,
    /// Steps before them.
    pub warmup: usize,
}

/// Measures strategies, each with a configuration of its own, beside the supernet of `base`, whose strategy does not
/// matter; without strategies the plain step alone. Configurations are asked for as often as they are needed.
///
/// # Errors
/// Whatever data, space and strategies have to say, and a dataset that has no full batch.
pub fn measure(
    base: &dyn Fn() -> Result<RunConfig>,
    strategies: Vec<(String, RunConfig)>,
    steps: Steps,
) -> Result<Report> {
    // A first product loads what libtorch loads late.
    let square = Tensor::ones([64, 64], (Kind::Float, Device::Cpu));
    let _ = square.mm(&square);
    let libraries_bytes = memory::resident();
    let bare = |what: PlainStep| {
        let mut config = base()?;
        config.strategy = Box::new(what);
        Subject::new(&config)
    };

    // The plain one first: the memory of the others comes on top of what is there already.
    let mut subjects = vec![bare(PlainStep::Weights)?];
    subjects[0].prepare(steps.warmup)?;
    let alone = strategies.is_empty();
    if !alone {
        subjects.push(bare(PlainStep::Joint)?);
    }
    let names: Vec<String> = strategies.iter().map(|(name, _)| name.clone()).collect();
    for (_, config) in &strategies {
        subjects.push(Subject::new(config)?);
    }
    for subject in &mut subjects[1..] {
        subject.prepare(steps.warmup)?;
    }

    // Waiting for a GPU at every border of phases takes time of its own, so there the phases get steps of their own.
    let on_cpu = subjects[0].search.device() == Device::Cpu;
    for _ in 0..steps.timed {
        for subject in &mut subjects {
            let seconds = subject.take(on_cpu)?;
            subject.samples.push(seconds);
        }
    }
    for _ in 0..if on_cpu { 0 } else { steps.timed } {
        for subject in &mut subjects {
            subject.take(true)?;
        }
    }
    let mut timings = subjects.iter().map(|s| s.timing(&subjects));
    let plain = timings.next().ok_or_else(|| Error::Invalid {
        what: "measurement".into(),
        why: "nothing was measured".into(),
    })?;
    let search = &subjects[0].search;
    let (batch, task) = (search.batch_size() as i64, search.task());
    let single_path = match alone {
        true => None,
        false => {
            let paths = [bare(PlainStep::Sampled)?, bare(PlainStep::Everywhere)?];
            Some(single_path(paths, steps, plain.seconds)?)
        }
    };
    Ok(Report {
        device: device::describe(search.device()),
        threads: tch::get_num_threads(),
        batch,
        images: vec![batch, task.channels, task.height, task.width],
        parameters: search.theta().numel() as i64,
        macs: supernet_macs(search.space(), task, &size(&base()?)?),
        single_path,
        plain: Plain {
            timing: plain,
            libraries_bytes,
        },
        joint: timings.next(),
        strategies: names.into_iter().zip(timings).collect(),
        machine: None,
    })
}

/// Channels and cells of the space's supernet, as it is configured.
fn size(config: &RunConfig) -> Result<NetworkOptions> {
    let space = config.space_section()?;
    Ok(NetworkOptions {
        channels: space["channels"].as_i64(),
        cells: space["cells"].as_u64().map(|n| n as usize),
        auxiliary: false,
    })
}

/// Steps through as many draws as there are candidates, some times, and takes the mean of the draws' medians.
fn single_path(mut paths: [Subject; 2], steps: Steps, all: f64) -> Result<SinglePath> {
    let groups = paths[0].search.space().spec().groups();
    let turns = groups.iter().map(|g| g.width()).max().unwrap_or(1);
    for step in 0..steps.warmup.min(1) + steps.timed.min(3) * turns {
        for path in &mut paths {
            let seconds = path.take(false)?;
            if step >= steps.warmup.min(1) {
                path.samples.push(seconds);
            }
        }
    }
    let [sampled, everywhere] = paths.map(|path| {
        let of = |turn| median(path.samples.iter().skip(turn).step_by(turns).copied());
        (0..turns).map(of).sum::<f64>() / turns as f64
    });
    Ok(SinglePath {
        sampled,
        everywhere,
        ratio: sampled / everywhere,
        of_all: sampled / all,
    })
}

/// A search that is stepped through and timed.
struct Subject {
    search: Search,
    strategy: Box<dyn Strategy>,
    clock: Arc<Mutex<PhaseClock>>,
    samples: Vec<f64>,
    /// Seconds and number of the steps whose phases were timed.
    clocked: (f64, usize),
    peak_bytes: Option<u64>,
    operators: Operators,
}

impl Subject {
    fn new(config: &RunConfig) -> Result<Self> {
        let (mut search, strategy) = config.trainer.start(config)?;
        let clock = Arc::new(Mutex::new(PhaseClock::new(search.device())));
        let listener: SharedListener = clock.clone();
        search.listen(&listener);
        Ok(Self {
            clock,
            search,
            strategy,
            samples: vec![],
            clocked: (0.0, 0),
            peak_bytes: None,
            operators: Operators { all: 0, leaves: 0 },
        })
    }

    /// Warms up; takes the peak of memory and the number of operator calls meanwhile.
    fn prepare(&mut self, warmup: usize) -> Result<()> {
        memory::reset_peak(self.search.device());
        for _ in 0..warmup {
            self.step()?;
        }
        let (done, calls) = profile::count(|| self.step());
        done?;
        self.peak_bytes = memory::peak(self.search.device());
        self.operators = Operators {
            all: calls.all,
            leaves: calls.leaves,
        };
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        advance(&mut self.search, self.strategy.as_mut())
    }

    /// Takes a step; gives its seconds, and those of its phases to the clock if it is to be asked.
    fn take(&mut self, clocked: bool) -> Result<f64> {
        lock(&self.clock).on = clocked;
        let device = self.search.device();
        synchronise(device);
        let began = Instant::now();
        self.step()?;
        synchronise(device);
        let seconds = began.elapsed().as_secs_f64();
        if clocked {
            self.clocked = (self.clocked.0 + seconds, self.clocked.1 + 1);
        }
        Ok(seconds)
    }

    /// Beside the plain and the joint step, the first two of `all` where there are others.
    fn timing(&self, all: &[Self]) -> Timing {
        let seconds = median(self.samples.iter().copied());
        let work = &self.search.clock().work;
        Timing {
            seconds,
            samples: self.samples.clone(),
            images_per_second: work.images as f64 / work.steps.max(1) as f64 / seconds,
            ratio: median_ratio(&self.samples, &all[0].samples),
            ratio_joint: all
                .get(1)
                .map(|joint| median_ratio(&self.samples, &joint.samples)),
            peak_bytes: self.peak_bytes,
            operators: self.operators,
            phases: lock(&self.clock).phases(self.clocked.0, self.clocked.1),
        }
    }
}
