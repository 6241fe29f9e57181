//! A run that several processes carry out together.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use nasfw_framework::Result;
use nasfw_framework::config::RunConfig;
use nasfw_framework::ranks::{Launcher, Ranks, Transport};
use nasfw_framework::run::RunFolder;

use super::{logging, searching};
use crate::host::Host;

/// Which processes carry a run out.
#[derive(Debug, Args)]
pub struct Processes {
    /// Carry the run out together with all processes that this launcher has started: `torchrun`, `slurm` (its `srun`) or
    /// `mpi` (`mpirun`) [see docs/processes.md]
    #[arg(long, value_name = "LAUNCHER", conflicts_with_all = ["on", "tui"])]
    ranks: Option<Launcher>,
    /// Give up a process that does not answer for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, requires = "ranks",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    ranks_timeout: u64,
    /// What carries gradients between them: `gloo`, or `nccl` from GPU to GPU
    #[arg(long, value_name = "TRANSPORT", default_value_t = Transport::Gloo, requires = "ranks")]
    ranks_over: Transport,
}

impl Processes {
    /// Waits for all of them. From then on the first one alone says anything but errors.
    ///
    /// # Errors
    /// Those of [`Ranks::join`].
    pub fn join(&self) -> Result<Ranks> {
        let Some(launcher) = self.ranks else {
            return Ok(Ranks::alone());
        };
        let ranks = Ranks::join(
            launcher,
            self.ranks_over,
            Duration::from_secs(self.ranks_timeout),
        )?;
        if !ranks.is_first() {
            logging::errors_only();
        }
        Ok(ranks)
    }

    /// The same for a run that begins: all of them must be asked for the same.
    ///
    /// # Errors
    /// Those of [`Processes::join`]; one that was asked for something else.
    pub fn join_with(&self, config: &RunConfig) -> Result<Ranks> {
        let ranks = self.join()?;
        if ranks.world() > 1 {
            let settings = config.fingerprint()?;
            let help = "start all of them by the same command";
            ranks.agree(&[("the settings", &settings)], help)?;
        }
        Ok(ranks)
    }
}

/// Tells the others that the first process works on this run.
pub fn announce(ranks: &Ranks, run: &Path) -> Result<()> {
    tell(ranks, WORK, run)
}

/// Tells the others that there is nothing to do: this run is over.
pub fn announce_end(ranks: &Ranks, run: &Path) -> Result<()> {
    tell(ranks, OVER, run)
}

const WORK: &str = "work on ";
const OVER: &str = "over is ";

fn tell(ranks: &Ranks, what: &str, run: &Path) -> Result<()> {
    let absolute = std::path::absolute(run);
    let path = absolute.as_deref().unwrap_or(run);
    ranks
        .texts(&format!("{what}{}", path.to_string_lossy()))
        .map(drop)
}

/// Takes part in what the first process does. Its data are in `data_dir`, where that is said here.
pub fn follow(host: &Host, ranks: &Ranks, data_dir: Option<&Path>) -> Result<()> {
    let said = ranks.texts("")?.swap_remove(0);
    let Some(path) = said.strip_prefix(WORK) else {
        let over = said.strip_prefix(OVER).unwrap_or_default();
        host.works_in(Path::new(over));
        return Ok(());
    };
    let run = RunFolder::follow(Path::new(path))?;
    let mut config = RunConfig::of_run(run.path())?;
    if let Some(dir) = data_dir {
        config.common.data_dir = dir.to_owned();
    }
    searching::search(host, &config, &run, false, ranks)
}
