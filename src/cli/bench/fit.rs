//! `nasfw bench fit`: a surrogate benchmark of a table of architectures and values.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use nasfw_analysis::stats::kendall;
use nasfw_framework::command::quoted;
use nasfw_framework::printable::counted;
use nasfw_framework::{Error, Result};
use nasfw_spaces::surrogate::{Figures, Rows, Surrogate, fit};
use nasfw_spaces::tables::{FAMILIES, Table};
use serde_json::{Value, json};
use tracing::info;

use super::super::logging;
use super::super::output::{hint, say};

/// Options of `bench fit`.
#[derive(Debug, Args)]
pub struct Fit {
    /// What is known: a benchmark's name, a table that `nasfw bench import` made, or CSV files with a column `genotype` and
    /// one of values
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<PathBuf>,
    /// Write the surrogate to this file
    #[arg(long, short = 'o', value_name = "FILE")]
    output: PathBuf,
    /// The space of the architectures [default: what the table or the form of the genotypes says]
    #[arg(long)]
    space: Option<String>,
    /// The metric to fit [default: the table's first one of validation, or the only column of values]
    #[arg(long)]
    metric: Option<String>,
    /// Seed of the networks and of the parts of the table
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// What cross-validation says as JSON
    #[arg(long)]
    json: bool,
}

impl Fit {
    /// Reads, fits, writes, and says what it is worth.
    pub fn carry_out(self) -> Result<()> {
        logging::to_terminal();
        let began = Instant::now();
        let mut read = self.tables.iter().map(|path| self.read(path));
        let first = read.next().unwrap_or_else(|| {
            Err(Error::Invalid {
                what: "command".into(),
                why: "no table is named".into(),
            })
        })?;
        let rows = read.try_fold(first, |all, more| all.and(more?))?;
        info!(
            "{}, {} of each",
            counted(rows.rows.len() as u64, "architecture"),
            rows.metric
        );
        let fitted = fit(&rows, self.seed, |done, of| info!("network {done} of {of}"))?;
        let tau = |measured: &[f64], predicted: &[f64]| kendall(measured, predicted).map(|k| k.tau);
        let figures = Figures::of(&fitted.held_out, tau);
        let mut surrogate = Surrogate::new(rows, fitted, figures, self.seed);
        surrogate.write(&self.output)?;
        if self.json {
            say(format!("{:#}", describe(&surrogate, &self.output)));
            return Ok(());
        }
        print(&surrogate, &self.output);
        say(format!("in {:.1} s", began.elapsed().as_secs_f64()));
        let space = surrogate
            .about
            .spaces
            .last()
            .map_or("SPACE", String::as_str);
        hint(format!(
            "\nnext:\n  nasfw run --strategy regularized-evolution --space {space} --set benchmark.name=surrogate --set \
             benchmark.file={}",
            quoted(&self.output)
        ));
        Ok(())
    }

    /// The rows of a table or of a CSV file.
    fn read(&self, path: &Path) -> Result<Rows> {
        let metric = self.metric.as_deref();
        let family = FAMILIES.into_iter().find(|f| path.as_os_str() == f.name);
        if family.is_none() && Surrogate::is_one(path) {
            return Err(Error::Data {
                path: path.into(),
                problem: "this is a surrogate already".into(),
                help: "fit the table that it was made of; `nasfw bench info FILE` says which"
                    .into(),
            });
        }
        if family.is_none() && !Table::is_one(path) {
            return Rows::of_csv(path, self.space.as_deref(), metric);
        }
        let (family, table) = super::open_table(&path.to_string_lossy())?;
        let mut rows = Rows::of_table(family, &table, metric)?;
        if let Some(space) = &self.space {
            if !rows.spaces.contains(space) {
                return Err(Error::Incompatible {
                    what: format!("benchmark `{}` on space `{space}`", family.name),
                    why: format!("it knows {}", family.spaces.join(", ")),
                    help: "leave `--space` out, or name one of these".into(),
                });
            }
            rows.spaces = vec![space.clone()];
        }
        Ok(rows)
    }
}

/// What a surrogate says of itself, for people.
pub fn print(surrogate: &Surrogate, path: &Path) {
    let about = &surrogate.about;
    let bytes = std::fs::metadata(path).map_or(0, |m| m.len());
    let best = surrogate
        .optimum
        .values()
        .next()
        .copied()
        .unwrap_or(f64::NAN);
    say(format!(
        "surrogate: `{}` of {} is known, that of others is predicted\n  file      {} ({:.1} MB)\n  source    {}\n  spaces    \
         {}\n  checksum  {}\n  best      {best:.4}, and none is predicted to be better\n  held out  {}",
        about.metric,
        counted(about.rows as u64, "architecture"),
        path.display(),
        bytes as f64 / 1e6,
        about.source,
        about.spaces.join(", "),
        about.digest,
        about.figures
    ));
}

/// The same as JSON, without the numbers that only the model needs.
pub fn describe(surrogate: &Surrogate, path: &Path) -> Value {
    let about = &surrogate.about;
    json!({
        "name": "surrogate", "file": path, "bytes": std::fs::metadata(path).map_or(0, |m| m.len()),
        "metric": about.metric, "spaces": about.spaces, "source": about.source, "datasets": about.datasets,
        "epochs": about.epochs, "seed": about.seed, "rows": about.rows, "optimum": surrogate.optimum,
        "held_out": about.figures, "checksum": about.digest,
    })
}
