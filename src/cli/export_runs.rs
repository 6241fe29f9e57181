//! `nasfw export-runs`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use nasfw_analysis::record::Record;
use nasfw_analysis::table;
use nasfw_framework::{Error, Result};

use super::output::{say, write_file};

/// Options of `export-runs`.
#[derive(Debug, Args)]
pub struct ExportRuns {
    /// Run folders
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder that gets runs.csv, a row a run, and history.csv, a row a number
    #[arg(long, value_name = "DIR")]
    csv: PathBuf,
}

impl ExportRuns {
    /// Writes two CSV files.
    pub fn carry_out(self) -> Result<()> {
        let runs: Result<Vec<Record>> = self.runs.iter().map(|run| Record::read(run)).collect();
        let runs = runs?;
        fs::create_dir_all(&self.csv).map_err(Error::io("create the folder", &self.csv))?;
        for (name, text) in [
            ("runs.csv", table::runs(&runs)?),
            ("history.csv", table::history(&runs)?),
        ] {
            let path = self.csv.join(name);
            write_file(&path, &text)?;
            say(format!("written to {}", path.display()));
        }
        Ok(())
    }
}
