//! `nasfw figure`.

use std::path::PathBuf;

use clap::Args;
use nasfw_analysis::figures::{ComparisonKind, Figure as Drawn, Kind};
use nasfw_analysis::record::Record;
use nasfw_framework::registry::similar;
use nasfw_framework::{Error, Result};

use super::comparison;
use super::output::{say, write_file};

/// Options of `figure`.
#[derive(Debug, Args)]
pub struct Figure {
    /// A run folder, or a comparison's folder
    what: PathBuf,
    /// Which figure; without it, lists those that there is data for
    kind: Option<String>,
    /// The row (`0->2`, `normal/0->2`) or group (`normal`) to show [default: the first group]
    #[arg(long, value_name = "ROW")]
    edge: Option<String>,
    /// Write to this file, SVG or PNG by its ending, instead of SVG to standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Figure {
    /// Draws, or lists.
    pub fn carry_out(self) -> Result<()> {
        let figures = self.figures()?;
        let Some(kind) = &self.kind else {
            return self.list(&figures);
        };
        let Some((_, _, figure)) = figures.iter().find(|(name, ..)| name == kind) else {
            let names: Vec<&str> = figures.iter().map(|f| f.0).collect();
            return Err(Error::Incompatible {
                what: format!("figure `{kind}`"),
                why: "there is no figure of this name".into(),
                help: match similar(kind, names.iter().copied()) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("known: {}", names.join(", ")),
                },
            });
        };
        let Some(figure) = figure else {
            return Err(Error::Run {
                path: self.what.clone(),
                problem: format!("there is no data for the figure `{kind}`"),
                help: format!(
                    "`nasfw figure {}` lists what can be drawn",
                    self.what.display()
                ),
            });
        };
        match &self.output {
            Some(file) => write_file(file, &figure.bytes_for(file)?),
            None => {
                say(figure.svg());
                Ok(())
            }
        }
    }

    /// Every figure by name with what it shows; none where there is no data for it.
    fn figures(&self) -> Result<Vec<(&'static str, &'static str, Option<Drawn>)>> {
        if let Some((comparison, _)) = comparison::load(&self.what)? {
            return Ok(ComparisonKind::ALL
                .into_iter()
                .map(|k| (k.name(), k.summary(), k.draw(&comparison)))
                .collect());
        }
        let record = Record::read(&self.what)?;
        Kind::ALL
            .into_iter()
            .map(|k| {
                let edge = self.edge.as_deref();
                Ok((k.name(), k.summary(), k.draw(&record, edge)?))
            })
            .collect()
    }

    fn list(&self, figures: &[(&str, &str, Option<Drawn>)]) -> Result<()> {
        for (name, summary, figure) in figures {
            if figure.is_some() {
                say(format!("{name:14}{summary}"));
            }
        }
        if figures.iter().all(|f| f.2.is_none()) {
            say("there is no data for any figure yet");
        }
        Ok(())
    }
}
