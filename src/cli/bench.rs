//! `nasfw bench`: tables of published results, surrogates of tables, and how long steps take.

mod best;
mod fit;
mod latency;
mod perf;
pub mod tables;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand};
use nasfw_framework::command::quoted;
use nasfw_framework::printable::counted;
use nasfw_framework::{Error, Result};
use nasfw_spaces::surrogate::{Answer, LEVELS, Surrogate};
use nasfw_spaces::tables::{Family, Header, Table};
use serde_json::{Map, Value, json};

use super::genotype;
use super::output::{hint, say};

/// Verbs of `bench`.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Turn published files into a table that searches look up.
    #[command(after_help = "Example:\n  nasfw bench import nasbench201 nasbench201.csv.gz")]
    Import(Import),
    /// Fit a model to a table, so that searches ask for architectures that it lacks, too.
    #[command(after_help = "Example:\n  nasfw bench fit nasbench101 -o nasbench101.surrogate")]
    Fit(fit::Fit),
    /// List the benchmarks that are tables, which are imported, and the surrogates beside them.
    #[command(after_help = "Example:\n  nasfw bench list")]
    List(tables::List),
    /// Show what a table holds, and where it comes from.
    #[command(after_help = "Example:\n  nasfw bench info nasbench201")]
    Info(Info),
    /// Read a whole table and check it.
    #[command(after_help = "Example:\n  nasfw bench verify nasbench201")]
    Verify(Verify),
    /// Look an architecture up.
    #[command(after_help = "Example:\n  nasfw bench query nasbench201 runs/NAME")]
    Query(Query),
    /// Show the best architectures that a benchmark knows, under limits on what they cost if there are any.
    #[command(after_help = "Example:\n  nasfw bench best --space nasbench201 --limit macs=40M")]
    Best(best::Best),
    /// Measure how long the pieces of a space's networks take on this machine, for limits on latency.
    #[command(after_help = "Example:\n  nasfw bench latency --space nasbench201 -o latency.csv")]
    Latency(latency::Latency),
    /// Time the steps of a space's supernet and of strategies on it, side by side.
    #[command(after_help = "Example:\n  nasfw bench perf --space darts --strategy darts")]
    Perf(perf::Perf),
}

impl Bench {
    /// Where the verb's output can be sent instead.
    pub fn elsewhere(&self) -> Option<&'static str> {
        match self {
            Self::Import(_) | Self::Fit(_) | Self::Latency(_) => {
                Some("another file with `-o FILE`")
            }
            Self::Perf(_) => Some("another file with `--json FILE`"),
            _ => None,
        }
    }

    /// Carries the verb out.
    pub fn carry_out(self) -> Result<()> {
        match self {
            Self::Import(v) => v.carry_out(),
            Self::Fit(v) => v.carry_out(),
            Self::List(v) => v.carry_out(),
            Self::Info(v) => v.carry_out(),
            Self::Verify(v) => v.carry_out(),
            Self::Query(v) => v.carry_out(),
            Self::Best(v) => v.carry_out(),
            Self::Latency(v) => v.carry_out(),
            Self::Perf(v) => v.carry_out(),
        }
    }
}

/// Options of `bench import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The benchmark: nasbench101 or nasbench201
    name: String,
    /// The published files [see `nasfw bench list`]
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write the table to this file [default: where searches look]
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Import {
    fn carry_out(self) -> Result<()> {
        let family = Family::named(&self.name)?;
        let path = match &self.output {
            Some(path) => path.clone(),
            None => family.default_file()?,
        };
        let began = Instant::now();
        let header = (family.import)(&self.files)?.write(&path)?;
        let table = family.open(&path)?;
        say(format!(
            "{}: {}, {:.1} MB, in {:.1} s",
            path.display(),
            header.coverage(),
            table.bytes() as f64 / 1e6,
            began.elapsed().as_secs_f64()
        ));
        print_optimum(&header);
        let option = match &self.output {
            Some(path) => format!(" --set benchmark.file={}", quoted(path)),
            None => String::new(),
        };
        let space = family.spaces.last().copied().unwrap_or_default();
        hint(format!("\nnext:\n  nasfw run --space {space}{option}"));
        Ok(())
    }
}

/// Options of `bench info`.
#[derive(Debug, Args)]
pub struct Info {
    /// A benchmark's name, or the file of a table or a surrogate
    table: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Info {
    fn carry_out(self) -> Result<()> {
        let (_, table) = match open(&self.table)? {
            Opened::Table(family, table) => (family, table),
            Opened::Surrogate(surrogate, path) => {
                match self.json {
                    true => say(format!("{:#}", fit::describe(&surrogate, &path))),
                    false => fit::print(&surrogate, &path),
                }
                return Ok(());
            }
        };
        if self.json {
            say(format!("{:#}", describe(&table)));
            return Ok(());
        }
        let header = table.header();
        say(format!(
            "{}: {}\n  file      {} ({:.1} MB)\n  source    {}\n  checksum  {}\n",
            header.name,
            header.coverage(),
            table.path().display(),
            table.bytes() as f64 / 1e6,
            header.source,
            table.checksum()
        ));
        for metric in &header.metrics {
            let repeats = match metric.columns.len() {
                1 => String::new(),
                n => format!(", up to {n} repeats"),
            };
            let best = header.optimum.get(&metric.name);
            let best = best.map_or(String::new(), |v| format!(", best {v:.4}"));
            say(format!(
                "  {:28} {}{repeats}{best}",
                metric.name,
                unit(&metric.unit)
            ));
        }
        Ok(())
    }
}

fn unit(unit: &str) -> &str {
    if unit.is_empty() { "number" } else { unit }
}

fn describe(table: &Table) -> Value {
    let mut value = serde_json::to_value(table.header()).unwrap_or_default();
    value["complete"] = table.header().complete().into();
    value["file"] = json!(table.path());
    value["bytes"] = table.bytes().into();
    value["checksum"] = table.checksum().into();
    value
}

fn print_optimum(header: &Header) {
    for (name, best) in header
        .optimum
        .iter()
        .filter(|(name, _)| !name.contains('@'))
    {
        say(format!("  best {name:24} {best:.4}"));
    }
}

/// Options of `bench verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// A benchmark's name, or the file of a table or a surrogate
    table: String,
}

impl Verify {
    fn carry_out(self) -> Result<()> {
        let (_, table) = match open(&self.table)? {
            Opened::Table(family, table) => (family, table),
            // All of it was checked when it was opened.
            Opened::Surrogate(surrogate, path) => {
                let networks = surrogate.networks();
                say(format!(
                    "{}: {} and {} are as they were written: the checksum is right\nheld out: {}",
                    path.display(),
                    counted(surrogate.keys.len() as u64, "architecture"),
                    counted(networks as u64, "network"),
                    surrogate.about.figures
                ));
                return Ok(());
            }
        };
        table.verify()?;
        say(format!(
            "{}: {} are as they were written: checksum, order of keys and optimum are right",
            table.path().display(),
            table.header().coverage()
        ));
        Ok(())
    }
}

/// Options of `bench query`.
#[derive(Debug, Args)]
pub struct Query {
    /// A benchmark's name, or the file of a table or a surrogate
    table: String,
    /// A run folder, a file with a genotype, a genotype as text such as `|skip_connect~0|+|none~0|none~1|+|…|`, or a
    /// key: a hash of NAS-Bench-101, six digits of NAS-Bench-201
    architecture: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Query {
    fn carry_out(self) -> Result<()> {
        let (family, table) = match open(&self.table)? {
            Opened::Table(family, table) => (family, table),
            Opened::Surrogate(surrogate, path) => return self.of_surrogate(&surrogate, &path),
        };
        let key = key(family, &self.architecture)?;
        let row = match &key {
            Some(key) => table.row(key)?,
            None => None,
        };
        let shown = key.as_deref().map(family.show_key);
        let (Some(row), Some(shown)) = (row, shown.clone()) else {
            let shown = shown.unwrap_or_else(|| self.architecture.clone());
            return Err(Error::Data {
                path: table.path().into(),
                problem: format!("it lacks {shown} (it has {})", table.header().coverage()),
                help: match table.header().complete() {
                    true => "this is no architecture of the benchmark: it has too many edges, no path, or \
                             operations that the benchmark does not know"
                        .into(),
                    false => format!("import a complete table: `nasfw bench import {} FILE`", family.name),
                },
            });
        };
        let mut out = Map::new();
        if !self.json {
            say(&shown);
        }
        for (i, metric) in table.header().metrics.iter().enumerate() {
            let Some(mean) = row.mean(i) else { continue };
            let repeats: Vec<f64> = row
                .repeats
                .get(i)
                .into_iter()
                .flatten()
                .copied()
                .flatten()
                .collect();
            let best = table.header().optimum.get(&metric.name);
            let regret = best.map(|b| b - mean);
            if self.json {
                out.insert(
                    metric.name.clone(),
                    json!({ "value": mean, "unit": metric.unit, "repeats": repeats, "regret": regret }),
                );
                continue;
            }
            let regret = regret.map_or(String::new(), |r| format!("  regret {r:.4}"));
            let each = match repeats.as_slice() {
                [_] => String::new(),
                many => format!(
                    "  ({})",
                    many.iter()
                        .map(|v| format!("{v:.4}"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            let value = match metric.unit.as_str() {
                "" => format!("{mean}"),
                unit => format!("{mean:.4} {unit}"),
            };
            say(format!("  {:28} {value}{regret}{each}", metric.name));
        }
        if self.json {
            say(format!(
                "{:#}",
                json!({ "architecture": shown, "metrics": out })
            ));
        } else {
            say(format!(
                "regret is against the best of {}",
                table.header().coverage()
            ));
        }
        Ok(())
    }
}

impl Query {
    /// What is known or predicted of an architecture.
    fn of_surrogate(self, surrogate: &Surrogate, path: &Path) -> Result<()> {
        let genotype = genotype::load(&self.architecture, &[])?;
        let genotype = surrogate.as_own(genotype);
        let metric = &surrogate.about.metric;
        let best = surrogate.optimum.get(metric).copied().unwrap_or(f64::NAN);
        let answer = surrogate.answer(&genotype)?.ok_or_else(|| Error::Data {
            path: path.into(),
            problem: format!("it can't contain {}", self.architecture),
            help: "this is no architecture of the benchmark: it has too many edges, no path, or operations that the \
                   benchmark does not know"
                .into(),
        })?;
        if self.json {
            let value = match answer {
                Answer::Measured(value) => {
                    json!({ "value": value, "regret": best - value, "predicted": false })
                }
                Answer::Predicted(p) => json!({
                    "value": p.value, "regret": best - p.value, "predicted": true,
                    "intervals": LEVELS.iter().zip(p.intervals).map(|(level, ends)| json!({"level": level, "ends": ends}))
                        .collect::<Vec<_>>(),
                }),
            };
            say(format!(
                "{:#}",
                json!({ "architecture": genotype, "metrics": { metric: value } })
            ));
            return Ok(());
        }
        match answer {
            Answer::Measured(value) => {
                say(format!("{metric}: {value:.4}, regret {:.4}", best - value))
            }
            Answer::Predicted(p) => {
                say(format!(
                    "{metric} (predicted): {:.4}, regret {:.4} (predicted)",
                    p.value,
                    best - p.value
                ));
                for (level, [low, high]) in LEVELS.iter().zip(p.intervals) {
                    say(format!(
                        "  between {low:.4} and {high:.4} with a probability of {:.0} %",
                        level * 100.0
                    ));
                }
                say(format!(
                    "held-out architectures: {}",
                    surrogate.about.figures
                ));
            }
        }
        say(format!(
            "regret is against the best of {} that are known",
            counted(surrogate.keys.len() as u64, "architecture")
        ));
        Ok(())
    }
}

/// What a verb was given.
enum Opened {
    Table(&'static Family, Table),
    Surrogate(Box<Surrogate>, PathBuf),
}

/// The table of a benchmark's name, in its default place, or the table or surrogate of a file.
fn open(what: &str) -> Result<Opened> {
    let path = Path::new(what);
    if path.is_file() && Surrogate::is_one(path) {
        return Ok(Opened::Surrogate(
            Surrogate::open(path)?.into(),
            path.into(),
        ));
    }
    open_table(what).map(|(family, table)| Opened::Table(family, table))
}

/// The table of a benchmark's name, in its default place, or of a file.
fn open_table(what: &str) -> Result<(&'static Family, Table)> {
    let path = Path::new(what);
    if path.is_file() || what.contains(['/', '.']) {
        let table = Table::open(path)?;
        let family = Family::named(&table.header().name)?;
        return Ok((family, table));
    }
    let family = Family::named(what)?;
    let path = family.default_file()?;
    if !path.exists() {
        return Err(Error::Data {
            path,
            problem: format!("no table of {what} is imported"),
            help: format!(
                "type `nasfw bench import {what} FILE`; it takes {}",
                family.takes
            ),
        });
    }
    Ok((family, family.open(&path)?))
}

/// The key of what was typed: none where the benchmark can't contain it.
fn key(family: &Family, architecture: &str) -> Result<Option<Vec<u8>>> {
    match (family.parse_key)(architecture.trim()) {
        Some(key) => Ok(Some(key)),
        None => (family.key)(&genotype::load(architecture, &[])?),
    }
}
