//! `nasfw resume`.

use std::path::{Path, PathBuf};

use clap::Args;
use nasfw_framework::Result;
use nasfw_framework::config::RunConfig;
use nasfw_framework::ranks::Ranks;
use nasfw_framework::run::{RESULT, RunFolder, need_run, read_stored};
use nasfw_framework::trainer::Outcome;

use super::output::say;
use super::processes::{Processes, announce, announce_end, follow};
use super::ready::ready;
use super::submission::Handover;
use super::{searching, summary, waiting};
use crate::host::Host;

/// Options of `resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// The run folder
    run: PathBuf,
    /// Where the dataset's files are now, if they have moved
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Wait for some time for another process that works on the run; for jobs that may be started again
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    handover: Handover,
    #[command(flatten)]
    processes: Processes,
    /// Show the search on a screen of its own: curves, entropy per edge, the architecture so far
    #[arg(long, conflicts_with = "on")]
    tui: bool,
}

impl Resume {
    /// Goes on from the newest whole checkpoint. A finished run only says again what it found.
    pub fn carry_out(self, host: &Host) -> Result<()> {
        searching::check_view(self.tui)?;
        ready()?;
        if let Some(engine) = self.handover.engine() {
            need_run(&self.run)?;
            let data_dir = self.data_dir.as_deref();
            return self.handover.submit(host, engine, &self.run, data_dir);
        }
        let ranks = self.processes.join()?;
        if !ranks.is_first() {
            return follow(host, &ranks, self.data_dir.as_deref());
        }
        if self.wait {
            waiting::until_free(&self.run, || false);
        }
        let data_dir = match self.data_dir {
            Some(dir) => dir,
            None => RunConfig::of_run(&self.run)?.common.data_dir,
        };
        go_on(host, &self.run, &data_dir, self.tui, &ranks)
    }
}

/// Goes on with the run in a folder, or says what it found.
pub fn go_on(host: &Host, path: &Path, data_dir: &Path, tui: bool, ranks: &Ranks) -> Result<()> {
    if path.join(RESULT).exists() {
        announce_end(ranks, path)?;
        return say_again(host, path);
    }
    let folder = RunFolder::open(path)?;
    if path.join(RESULT).exists() {
        // It ended while this process waited for it.
        announce_end(ranks, path)?;
        return say_again(host, path);
    }
    announce(ranks, path)?;
    let mut config = RunConfig::of_run(path)?;
    config.common.data_dir = data_dir.to_owned();
    searching::search(host, &config, &folder, tui, ranks)
}

/// What a finished run found.
fn say_again(host: &Host, path: &Path) -> Result<()> {
    host.works_in(path);
    say("this run is finished");
    let config = RunConfig::of_run(path)?;
    let outcome: Outcome = read_stored(path, RESULT)?;
    let next = searching::next(path, &config, &outcome.genotype);
    // The run may have ended just before it was written; on a read-only copy it does not matter.
    if !path.join(searching::NEXT).exists()
        && let Ok(folder) = RunFolder::open(path)
    {
        searching::keep_next(&folder, &next);
    }
    summary::print(&outcome, path, &next)
}
