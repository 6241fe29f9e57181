//! `nasfw figure`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Args;
use nasfw_analysis::compare::{Comparison, State};
use nasfw_analysis::figures::{
    ComparisonKind, Figure as Drawn, Format, Kind, fronts, in_millimetres,
};
use nasfw_analysis::record::Record;
use nasfw_framework::command::command;
use nasfw_framework::registry::similar;
use nasfw_framework::{Error, Result};

use super::comparison;
use super::output::{millimetres, say, write_file};

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
    /// Lay the front of this run over it, too; as often as wanted
    #[arg(long, value_name = "RUN", requires = "kind")]
    with: Vec<PathBuf>,
    /// Write to this file, SVG, PNG or PDF by its ending, instead of SVG to standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
    /// So many millimetres wide, for a column of a paper
    #[arg(long, value_name = "MM", value_parser = millimetres, conflicts_with = "all")]
    width: Option<f64>,
    /// Write every figure that there is data for to this folder, as SVG, with all groups of weights; of a comparison also
    /// those of one run per strategy
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kind", "output"])]
    all: Option<PathBuf>,
}

/// A figure's name, what it shows, and the figure where there is data for it.
type Named = (&'static str, &'static str, Option<Drawn>);

/// What figures are drawn of.
enum Source {
    Run(Box<Record>),
    /// A comparison, and those of its trials' runs that are needed, in their order.
    Comparison(Box<Comparison>, Vec<Option<Record>>),
}

impl Figure {
    /// Draws, or lists.
    pub fn carry_out(self) -> Result<()> {
        let source = self.source()?;
        let mut figures = self.figures(&source)?;
        if !self.with.is_empty() {
            let together = self.together(&source)?;
            let front = figures.iter_mut().filter(|f| f.0 == Kind::Front.name());
            front.for_each(|figure| figure.2.clone_from(&together));
        }
        if let Some(dir) = &self.all {
            return self.write_all(dir, &source, &figures);
        }
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
                    "`{}` lists what can be drawn",
                    command([OsStr::new("figure"), self.what.as_os_str()])
                ),
            });
        };
        let svg = figure.svg();
        match &self.output {
            Some(file) => write_file(file, &Format::of(file)?.bytes(&svg, self.width)?),
            None => {
                say(self
                    .width
                    .map_or(svg.clone(), |width| in_millimetres(&svg, width)));
                Ok(())
            }
        }
    }

    /// The fronts of several runs over each other.
    fn together(&self, source: &Source) -> Result<Option<Drawn>> {
        let (Source::Run(first), true) = (source, self.kind.as_deref() == Some("front")) else {
            return Err(Error::Incompatible {
                what: "`--with`".into(),
                why: "only fronts of runs are laid over each other".into(),
                help: "`nasfw figure RUN front --with RUN`; `nasfw report RUN RUN` has runs side by side"
                    .into(),
            });
        };
        let others = self.with.iter().map(|run| Record::read(run));
        let others: Vec<Record> = others.collect::<Result<_>>()?;
        let all = std::iter::once(first.as_ref()).chain(&others);
        let all: Vec<(String, &Record)> = all.map(|run| (run.name(), run)).collect();
        let named: Vec<(&str, &Record)> = all.iter().map(|(n, r)| (n.as_str(), *r)).collect();
        Ok(fronts(&named))
    }

    /// Reads what is to be drawn; of a comparison's runs none where only its other figures are asked for.
    fn source(&self) -> Result<Source> {
        let Some((comparison, folder)) = comparison::load(&self.what)? else {
            return Ok(Source::Run(Box::new(Record::read(&self.what)?)));
        };
        let of = |kind: ComparisonKind| self.kind.as_deref().is_none_or(|k| k == kind.name());
        let needed = |i: usize| match comparison.trials[i].state {
            State::Done if of(ComparisonKind::Curves) => true,
            State::Done => {
                let some = ComparisonKind::ALL.into_iter();
                let wanted = some.filter(|kind| kind.is_of_one_seed()).any(of);
                wanted && comparison.of_one_seed().contains(&i)
            }
            _ => false,
        };
        let read = |i: usize| Record::read(&folder.join(&comparison.trials[i].run));
        let runs = (0..comparison.trials.len()).map(|i| needed(i).then(|| read(i)).transpose());
        let runs = runs.collect::<Result<_>>()?;
        Ok(Source::Comparison(Box::new(comparison), runs))
    }

    /// Every figure.
    fn figures(&self, source: &Source) -> Result<Vec<Named>> {
        let edge = self.edge.as_deref();
        match source {
            Source::Run(record) => of_run(record, edge),
            Source::Comparison(comparison, runs) => {
                let runs: Vec<Option<&Record>> = runs.iter().map(Option::as_ref).collect();
                let named = |k: ComparisonKind| {
                    Ok((k.name(), k.summary(), k.draw(comparison, &runs, edge)?))
                };
                ComparisonKind::ALL.into_iter().map(named).collect()
            }
        }
    }

    fn write_all(&self, dir: &Path, source: &Source, figures: &[Named]) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let edge = self.edge.as_deref();
        let write = |prefix: &str, figures: &[Named]| -> Result<()> {
            for (name, _, figure) in figures {
                let Some(figure) = figure else { continue };
                let file = dir.join(format!("{prefix}{name}.svg"));
                write_file(&file, figure.svg().as_bytes())?;
                say(file.display().to_string());
            }
            Ok(())
        };
        write("", figures)?;
        // Of a run the first group is drawn already; without a row that was asked for, the others are, too.
        let write_groups = |record: &Record, prefix: &str| -> Result<()> {
            for group in record.groups.iter().skip(1).filter(|_| edge.is_none()) {
                for kind in [Kind::Weights, Kind::Entropy] {
                    let figure = kind.draw(record, Some(&group.name))?;
                    write(
                        &format!("{prefix}{}-", file_name(&group.name)),
                        &[(kind.name(), "", figure)],
                    )?;
                }
            }
            Ok(())
        };
        if let Source::Run(record) = source {
            write_groups(record, "")?;
        }
        if let Source::Comparison(comparison, runs) = source {
            for i in comparison.of_one_seed() {
                let Some(record) = &runs[i] else { continue };
                let label = &comparison.trials[i].strategy;
                write(&format!("{label}-"), &of_run(record, edge)?)?;
                write_groups(record, &format!("{label}-"))?;
            }
        }
        Ok(())
    }

    fn list(&self, figures: &[Named]) -> Result<()> {
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

fn of_run(record: &Record, edge: Option<&str>) -> Result<Vec<Named>> {
    let named = |k: Kind| Ok((k.name(), k.summary(), k.draw(record, edge)?));
    Kind::ALL.into_iter().map(named).collect()
}

/// A group's name as a piece of a file's name.
fn file_name(group: &str) -> String {
    let plain = |c: char| {
        if c.is_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '-'
        }
    };
    group.chars().map(plain).collect()
}
