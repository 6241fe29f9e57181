//! `nasfw resume`.

use std::path::PathBuf;

use clap::Args;
use nasfw_framework::Result;
use nasfw_framework::config::RunConfig;
use nasfw_framework::device::load_cuda;
use nasfw_framework::registry::Registry;
use nasfw_framework::run::{RESULT, RunFolder};
use nasfw_framework::trainer::Outcome;

use super::output::say;
use super::{logging, run, summary};

/// Options of `resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// The run folder
    run: PathBuf,
    /// Where the dataset's files are now, if they have moved
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Show the search on a screen of its own: curves, entropy per edge, the architecture so far
    #[arg(long)]
    tui: bool,
}

impl Resume {
    /// Goes on from the newest whole checkpoint. A finished run only says again what it found.
    pub fn carry_out(self) -> Result<()> {
        run::check_view(self.tui)?;
        load_cuda();
        logging::to_terminal();
        Registry::load()?;
        let folder = RunFolder::open(&self.run)?;
        let mut config = RunConfig::of_run(&folder)?;
        if folder.path().join(RESULT).exists() {
            say("this run is finished");
            let outcome: Outcome = folder.read_json(RESULT)?;
            let next = run::next(folder.path(), &config, &outcome.genotype);
            // The run may have ended just before it was written; on a read-only copy it does not matter.
            let _ = run::keep_next(&folder, &next);
            return summary::print(&outcome, &folder, &next);
        }
        if let Some(dir) = self.data_dir {
            config.common.data_dir = dir;
        }
        run::search(&config, &folder, self.tui)
    }
}
