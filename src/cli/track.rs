//! `nasfw track`.

use std::path::PathBuf;

use clap::Args;
use nasfw_framework::config::RunConfig;
use nasfw_framework::events::Event;
use nasfw_framework::listen::lock;
use nasfw_framework::registry::Registry;
use nasfw_framework::run::{EVENTS, RESULT, RunFolder, need_run, read_events, read_stored};
use nasfw_framework::tracker::Tracked;
use nasfw_framework::trainer::Outcome;
use nasfw_framework::{Error, Result};

use super::logging;
use super::output::say;
use super::selection::Settings;

/// Options of `track`.
#[derive(Debug, Args)]
pub struct Track {
    /// Run folders
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The tracker [see `nasfw list trackers`]
    #[arg(long, value_name = "NAME")]
    to: String,
    /// A setting of the tracker, for example `--set tracker.mlflow.uri=http://127.0.0.1:5000`
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Track {
    /// Tells a tracker of runs that were, as if it had been on. Nothing of a run changes.
    pub fn carry_out(self) -> Result<()> {
        logging::to_terminal();
        let registry = Registry::load()?;
        if let Some(other) = self
            .set
            .iter()
            .find(|set| !set.trim_start().starts_with("tracker."))
        {
            return Err(Error::Incompatible {
                what: format!("--set {other}"),
                why: "the settings of a run that was are what they are".into(),
                help: format!(
                    "only those of the tracker can be given: `--set tracker.{}.…`",
                    self.to
                ),
            });
        }
        let settings = Settings {
            track: vec![self.to.clone()],
            set: self.set.clone(),
            ..Settings::default()
        };
        let resolved = settings.resolve(&registry, vec![], vec![])?;
        let trackers = RunConfig::new(&registry, &resolved)?.trackers;
        for run in &self.runs {
            need_run(run)?;
            // A process that works on it tells its trackers itself.
            let _held = RunFolder::open(run)?;
            let config = RunConfig::of_run(run)?;
            let space = config.space.build()?;
            let events = as_one_process(read_events(&run.join(EVENTS))?);
            for tracker in &trackers {
                let listener = tracker.track(Tracked {
                    run,
                    config: &config.to_value()?,
                    groups: space.spec().groups(),
                    step: 0,
                    goes_on: false,
                })?;
                for event in &events {
                    lock(&listener).event(event)?;
                }
                if run.join(RESULT).exists() {
                    let outcome: Outcome = read_stored(run, RESULT)?;
                    lock(&listener).found(&outcome)?;
                }
            }
            say(format!(
                "{}: {} events told to {}",
                run.display(),
                events.len(),
                self.to
            ));
        }
        Ok(())
    }
}

/// What happened, without the ends and beginnings of processes in between.
fn as_one_process(mut events: Vec<Event>) -> Vec<Event> {
    let last = events.len().saturating_sub(1);
    let mut at = 0;
    events.retain(|event| {
        let keep = match event {
            Event::Started { .. } => at == 0,
            Event::Interrupted { .. } | Event::Failed { .. } => at == last,
            _ => true,
        };
        at += 1;
        keep
    });
    events
}
