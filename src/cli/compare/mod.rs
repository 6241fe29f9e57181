//! `nasfw compare` and `nasfw trial`.

mod jobs;
mod runner;
mod trial;
mod work;

use std::path::PathBuf;

use clap::Args;
use nasfw_analysis::compare::{COMPARISON, text};
use nasfw_framework::printable::counted;
use nasfw_framework::registry::Registry;
use nasfw_framework::run::RunFolder;
use nasfw_framework::{Error, Result};

use super::output::say;
use super::submission::Submission;
use super::{logging, progress};
use crate::host::Host;
use jobs::Jobs;
use runner::Ended;
pub use trial::OneTrial;
pub use work::PLAN;
use work::Work;

/// Options of `compare`.
#[derive(Debug, Args)]
pub struct Compare {
    /// The plan, a TOML file [see docs/comparing.md], or the folder of a comparison that has begun
    plan: PathBuf,
    /// Folder that gets the comparison's folder, instead of the plan's
    #[arg(long, short = 'o', value_name = "DIR")]
    out: Option<PathBuf>,
    /// Trials at once [default: 1; with `--on`, as many as the engine gives room to]
    #[arg(long, short = 'j', value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    #[command(flatten)]
    submission: Submission,
    /// Only say what the trials that are done amount to
    #[arg(long, conflicts_with_all = ["on", "dry_run"])]
    collect: bool,
    /// Only print the trials, or with `--on` what would be submitted
    #[arg(long)]
    dry_run: bool,
}

impl Compare {
    /// Carries out what of the plan is not done yet, and says what all of it amounts to.
    pub fn carry_out(self, host: &Host) -> Result<()> {
        logging::to_terminal();
        let registry = Registry::load()?;
        let mut work = Work::read(&self.plan, self.out.as_deref(), self.threads())?;
        work.check(&registry, !self.dry_run && !self.collect)?;
        let trials = counted(work.trials.len(), "trial");
        if self.dry_run {
            match self.jobs(&work) {
                Some(jobs) => jobs.scripts()?.iter().for_each(say),
                None => {
                    let runner = work.runner(1);
                    for (number, trial) in work.trials.iter().enumerate() {
                        say(runner.next_command(number, trial)?);
                    }
                    say(format!("{trials} in {}", work.path.display()));
                }
            }
            return Ok(());
        }

        let folder = work.begin()?;
        host.works_in(&work.path);
        let interrupt = host.interrupt(|| {})?;
        let ended = match self.jobs(&work) {
            _ if self.collect => Ended::All { failed: vec![] },
            Some(jobs) => {
                jobs.submit()?;
                jobs.watch(interrupt.flag())?
            }
            None => {
                let jobs = usize::try_from(self.jobs.unwrap_or(1)).unwrap_or(1);
                work.runner(jobs).run(&work.trials, interrupt.flag())?
            }
        };
        self.conclude(host, &work, &folder, ended)
    }

    /// Threads of a trial, and who says so.
    fn threads(&self) -> (u64, String) {
        match self.submission.engine() {
            Some(engine) => (self.submission.cpus(engine), format!("--on {engine}")),
            None => {
                let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
                let jobs = self.jobs.unwrap_or(1);
                ((cores / jobs).max(1), format!("--jobs {jobs}"))
            }
        }
    }

    /// The comparison's jobs, where an engine is to carry it out.
    fn jobs<'a>(&'a self, work: &'a Work) -> Option<Jobs<'a>> {
        Some(Jobs {
            engine: self.submission.engine()?,
            submission: &self.submission,
            work,
            at_once: self.jobs,
        })
    }

    /// Keeps and says what the trials amount to, and what there is left to do.
    fn conclude(&self, host: &Host, work: &Work, folder: &RunFolder, ended: Ended) -> Result<()> {
        let comparison = work.assemble(folder)?;
        let trials = counted(work.trials.len(), "trial");
        let again = format!("type the same command again: {}", host.typed());
        let failed = match (ended, self.jobs(work)) {
            (Ended::Interrupted { done, .. }, Some(jobs)) => {
                let cancel = jobs
                    .cancel()
                    .map_or(String::new(), |c| format!("; `{c}` cancels them"));
                return Err(Error::Stopped {
                    what: format!(
                        "no longer watching, with {done} of {trials} done; the jobs of {} go on",
                        jobs.engine
                    ),
                    help: format!("to go on watching, {again}{cancel}"),
                });
            }
            (Ended::Interrupted { done, lost }, None) => {
                return Err(Error::Stopped {
                    what: format!(
                        "interrupted with {done} of {trials} done; {}",
                        match lost.as_slice() {
                            [] => "those at work are saved".to_owned(),
                            lost => format!(
                                "those at work are saved, but these did not end as asked and go on from what they \
                                 saved before: {}",
                                lost.join(", ")
                            ),
                        }
                    ),
                    help: format!("to go on, {again}"),
                });
            }
            (Ended::All { failed }, _) => failed,
        };
        say(text(&comparison).trim_start());
        say(format!("result: {}", work.path.join(COMPARISON).display()));
        if failed.is_empty() {
            return Ok(());
        }
        for (id, lines) in &failed {
            progress::insist(&format!("\n{id}:\n{lines}"));
        }
        let (how, said) = match self.submission.engine() {
            Some(_) => ("are not done and have no job any more", "logs/ and jobs/"),
            None => ("failed", "logs/"),
        };
        Err(Error::Run {
            path: work.path.clone(),
            problem: format!("{} of {trials} {how}", failed.len()),
            help: format!("what they said is above and in {said}; to try them again, {again}"),
        })
    }
}
