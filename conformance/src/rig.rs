//! Searches under the suite's control: step by step with a trace, or whole through the trainer.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::{Tensor, no_grad};

use super::probe::Problem;
use super::trace::{Trace, Watch};
use nasfw_framework::config::{Common, RunConfig, Validator, differ};
use nasfw_framework::events::Event;
use nasfw_framework::listen::Vector;
use nasfw_framework::ranks::Ranks;
use nasfw_framework::registry::Plugin;
use nasfw_framework::run::{self, RunFolder};
use nasfw_framework::search::Search;
use nasfw_framework::strategy::{Claims, Strategy, StrategyConfig};
use nasfw_framework::trainer::{Job, Outcome, Trainer, advance, digest};
use nasfw_framework::{Error, Result};

/// A strategy with its settings, on a problem.
pub(super) struct Rig<'a> {
    pub plugin: &'a Plugin,
    pub section: Value,
    /// What counts as set by nobody, instead of the plugin's defaults: options that change nothing may be as they are here.
    pub usual: Option<Value>,
    pub problem: &'a Problem,
}

/// A step that was watched: its trace, and the search as it stands just before the step ends.
pub(super) struct Watched {
    pub trace: Trace,
    pub search: Search,
    pub strategy: Box<dyn Strategy>,
    /// θ when the step began.
    pub theta: Tensor,
    /// φ when the step began.
    pub phi: Tensor,
    /// The momentum of θ when the step began.
    pub momentum: Tensor,
}

/// A change of a vector just before a step.
pub(super) struct Nudge<'a> {
    pub of: Vector,
    /// Added to it.
    pub by: &'a Tensor,
}

/// What a whole search leaves that a user could see.
#[derive(Debug, PartialEq)]
pub(super) struct Traces {
    pub outcome: Outcome,
    pub events: Vec<Event>,
    /// BLAKE3 of the newest checkpoint's tensors, with how they lie in memory.
    pub tensors: String,
}

fn typed<T: DeserializeOwned>(value: &Value) -> Result<T> {
    serde_json::from_value(value.clone()).map_err(|e| Error::Invalid {
        what: "problem of the conformance suite".into(),
        why: e.to_string(),
    })
}

impl<'a> Rig<'a> {
    /// The same with other settings.
    pub fn with(&self, section: Value) -> Rig<'a> {
        Rig {
            section,
            usual: self.usual.clone(),
            ..*self
        }
    }

    /// The same with other settings that stand for a preset's: as in the program, they count as set by nobody.
    pub fn with_preset(&self, section: Value) -> Rig<'a> {
        Rig {
            usual: Some(section.clone()),
            section,
            ..*self
        }
    }

    /// The same on another problem.
    pub fn on<'b>(&'b self, problem: &'b Problem) -> Rig<'b> {
        Rig {
            plugin: self.plugin,
            section: self.section.clone(),
            usual: self.usual.clone(),
            problem,
        }
    }

    /// The typed, checked settings of the strategy.
    ///
    /// # Errors
    /// Settings that the strategy refuses.
    pub fn strategy(&self) -> Result<Box<dyn StrategyConfig>> {
        let config = self.plugin.strategy(&self.section).map_err(Box::new)?;
        let mut v = Validator::default();
        config.validate(&mut v);
        let usual = match &self.usual {
            Some(section) => section.clone(),
            None => self.plugin.default_section()?,
        };
        v.refuse_idle(|key| {
            let option = key.strip_prefix("strategy.").unwrap_or(key);
            differ(&self.section, &usual, option)
        });
        v.into_result().map_err(Box::new)?;
        Ok(config)
    }

    /// A run of the strategy on the problem.
    pub fn config(&self, seed: u64) -> Result<RunConfig> {
        let problem = self.problem;
        Ok(RunConfig {
            common: Common {
                seed,
                device: "cpu".into(),
                threads: 1,
                out: PathBuf::new(),
                data_dir: PathBuf::new(),
                download: false,
                tensorboard: false,
                precision: problem.precision,
            },
            trainer: Box::new(problem.trainer.clone()),
            space: typed(&problem.space)?,
            strategy: self.strategy()?,
            dataset: typed(&problem.dataset)?,
            benchmark: problem.benchmark.as_ref().map(typed).transpose()?,
            trackers: vec![],
            lacks: vec![],
        })
    }

    /// A search before its first step.
    pub fn start(&self) -> Result<(Search, Box<dyn Strategy>)> {
        let config = self.config(0)?;
        self.problem.trainer.start(&config)
    }

    /// What the strategy claims of itself.
    pub fn claims(&self) -> Result<Claims> {
        Ok(self.start()?.1.claims())
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> Result<u64> {
        Ok(self.start()?.0.steps_per_epoch())
    }

    /// Carries out steps up to number `step`, and watches that one. Counted randomness makes every replay the same
    /// but for `nudge`, a change just before the watched step, and `pins`, the weights of its losses.
    pub fn replay(
        &self,
        step: u64,
        nudge: Option<Nudge<'_>>,
        pins: Option<Vec<Tensor>>,
    ) -> Result<Watched> {
        let (search, strategy) = self.start()?;
        watch(search, strategy, step, nudge, pins)
    }

    /// A whole search in a folder of its own; interrupted after every step and gone on with, if asked for.
    pub fn run(&self, seed: u64, interrupted: bool) -> Result<Traces> {
        let config = self.config(seed)?;
        let folder = Scratch::new()?;
        let run = RunFolder::create(&folder.0, "run")?;
        let flag = AtomicBool::new(interrupted);
        let outcome = loop {
            let job = Job {
                config: &config,
                run: &run,
                listeners: vec![],
                interrupt: &flag,
                ranks: Ranks::alone(),
            };
            match config.trainer.search(job) {
                Err(Error::Interrupted { .. }) => {}
                other => break other?,
            }
        };
        let events = run::read_events(&run.path().join(run::EVENTS))?
            .into_iter()
            .filter(|e| !matches!(e, Event::Started { .. } | Event::Interrupted { .. }))
            .map(Event::reproducible)
            .collect();
        let tensors = digest(run.path(), &config.fingerprint()?)?.unwrap_or_default();
        Ok(Traces {
            outcome,
            events,
            tensors,
        })
    }
}

/// Carries out steps up to number `step` of a search that has not begun, and watches that one.
pub(super) fn watch(
    mut search: Search,
    mut strategy: Box<dyn Strategy>,
    step: u64,
    nudge: Option<Nudge<'_>>,
    pins: Option<Vec<Tensor>>,
) -> Result<Watched> {
    while search.clock().step < step {
        advance(&mut search, strategy.as_mut())?;
    }
    if search.clock().step_in_epoch == 0 {
        strategy.epoch_start(&mut search)?;
    }
    if let Some(Nudge { of, by }) = nudge {
        no_grad(|| {
            let mut vector = match of {
                Vector::Theta => search.theta(),
                Vector::Phi => search.phi(),
            };
            let _ = vector.g_add_(by);
        });
    }
    let (theta, phi) = (search.theta().detach().copy(), search.phi().detach().copy());
    let momentum = search.theta_optimizer().momentum_buffer().copy();
    let watch = Watch::begin(&mut search, pins);
    search.begin_step();
    strategy.step(&mut search)?;
    let mut trace = watch.end();
    trace.audit(&search.theta(), &search.phi(), "when the step ended");
    Ok(Watched {
        trace,
        search,
        strategy,
        theta,
        phi,
        momentum,
    })
}

/// A folder that goes away.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// An empty folder.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nasfw-conformance-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).map_err(Error::io("create the folder", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
