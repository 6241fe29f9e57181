//! `nasfw report`.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::Args;
use nasfw_analysis::record::Record;
use nasfw_analysis::report::Report as Page;
use nasfw_framework::command::command;
use nasfw_framework::{Error, Result};

use super::comparison;
use super::output::{format_of, say, write_file};

/// Options of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// Run folders, or the folder or plan of one comparison
    #[arg(required = true)]
    what: Vec<PathBuf>,
    /// Write to this file
    #[arg(long, short = 'o', value_name = "FILE", default_value = "report.html")]
    output: PathBuf,
}

impl Report {
    /// Writes one HTML file.
    pub fn carry_out(self) -> Result<()> {
        format_of("-o", &self.output, &[("html", ()), ("htm", ())])?;
        let page = self.page()?;
        write_file(&self.output, page.html().as_bytes())?;
        if self.output.is_file() {
            say(format!("written to {}", self.output.display()));
        }
        Ok(())
    }

    fn page(&self) -> Result<Page> {
        if let [what] = self.what.as_slice()
            && let Some((comparison, folder)) = comparison::load(what)?
        {
            return Ok(Page::of_comparison(comparison, &folder));
        }
        let read = |path: &PathBuf| match comparison::load(path) {
            Ok(Some(_)) => Err(Error::Incompatible {
                what: path.display().to_string(),
                why: "this is a comparison, and a report is about one comparison or about runs"
                    .into(),
                help: format!(
                    "give it alone: `{}`",
                    command([OsStr::new("report"), path.as_os_str()])
                ),
            }),
            Ok(None) => Record::read(path),
            Err(e) => Err(e),
        };
        let runs: Result<Vec<Record>> = self.what.iter().map(read).collect();
        Ok(Page::Runs(runs?))
    }
}
