//! `nasfw trial`.

use std::path::PathBuf;

use clap::Args;
use nasfw_framework::printable::counted;
use nasfw_framework::registry::Registry;
use nasfw_framework::run::RunFolder;
use nasfw_framework::{Error, Result};

use super::runner::Ended;
use super::work::Work;
use crate::cli::output::say;
use crate::cli::{logging, progress, waiting};
use crate::host::Host;

/// Options of `trial`.
#[derive(Debug, Args)]
pub struct OneTrial {
    /// The plan, a TOML file, or the folder of a comparison that has begun
    plan: PathBuf,
    /// Number of the trial, from 0 [`nasfw compare PLAN --dry-run` shows them]
    #[arg(required_unless_present = "count")]
    index: Option<usize>,
    /// Folder that gets the comparison's folder, instead of the plan's
    #[arg(long, short = 'o', value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only print how many trials there are
    #[arg(long, conflicts_with = "index")]
    count: bool,
}

impl OneTrial {
    /// Runs, resumes or ranks a trial, until it is done.
    pub fn carry_out(self, host: &Host) -> Result<()> {
        logging::to_terminal();
        let registry = Registry::load()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let threads = (cores, "--jobs 1".into());
        let mut work = Work::read(&self.plan, self.out.as_deref(), threads)?;
        let Some(index) = self.index.filter(|_| !self.count) else {
            say(work.trials.len().to_string());
            return Ok(());
        };
        let Some(trial) = work.trials.get(index).cloned() else {
            return Err(Error::Incompatible {
                what: format!("trial {index}"),
                why: format!(
                    "there are {}, and the first is 0",
                    counted(work.trials.len(), "trial")
                ),
                help: "`nasfw compare PLAN --dry-run` shows all with their numbers".into(),
            });
        };
        work.check(&registry, true)?;
        work.begin_with(&trial)?;
        // With the threads that the comparison has begun with.
        let trial = work
            .trials
            .iter()
            .find(|t| t.id == trial.id)
            .unwrap_or(&trial);

        let run = work.run_folder(trial);
        host.works_in(&run);
        let interrupt = host.interrupt(|| {})?;
        waiting::until_free(&run, || interrupt.is_asked());
        if !interrupt.is_asked() && RunFolder::holder(&run).is_some() {
            // It says who works there.
            RunFolder::at(&run)?;
        }
        let again = format!("type the same command again: {}", host.typed());
        let ended = work
            .runner(1)
            .run(std::slice::from_ref(trial), interrupt.flag())?;
        match ended {
            Ended::Interrupted { lost, .. } => Err(Error::Stopped {
                what: match lost.is_empty() {
                    true => format!("{} was interrupted and is saved", trial.id),
                    false => format!(
                        "interrupted; this did not end as asked and goes on from what it saved before: {}",
                        lost.join(", ")
                    ),
                },
                help: format!("to go on, {again}"),
            }),
            Ended::All { failed } => match failed.into_iter().next() {
                None => {
                    say(format!("{} is done: {}", trial.id, run.display()));
                    Ok(())
                }
                Some((id, lines)) => {
                    progress::insist(&lines);
                    Err(Error::Run {
                        path: run.clone(),
                        problem: format!("{id} failed"),
                        help: format!(
                            "what it said is above and in logs/; to try it again, {again}"
                        ),
                    })
                }
            },
        }
    }
}
