//! What a model learns from: architectures with a value each.

use std::collections::BTreeMap;
use std::path::Path;

use nasfw_framework::arch::Genotype;
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::space::{SearchSpace, SpaceConfig};
use nasfw_framework::{Error, Result};

use super::key::{Key, key};
use crate::formats;
use crate::tables::source::{self, Csv};
use crate::tables::{Family, Table, nasbench101};

/// The column of a CSV file that holds architectures.
const GENOTYPE: &str = "genotype";
/// What to do about a CSV file that can't be used.
const HELP: &str = "a table to fit is a CSV file with a column `genotype`, in any form that `nasfw genotype` reads \
                    (quoted where it has commas), and a column of numbers with the metric's name (docs/tables.md has an \
                    example); published files of a benchmark become a table first: `nasfw bench import NAME FILE`";

/// An architecture and what it is worth.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The architecture.
    pub genotype: Genotype,
    /// Its name in files.
    pub key: Key,
    /// The metric; higher is better.
    pub value: f64,
}

/// All that is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// What the values are.
    pub metric: String,
    /// Spaces whose architectures these are.
    pub spaces: Vec<String>,
    /// Files that they come from.
    pub source: String,
    /// Names of the datasets that the values were measured on, as far as known.
    pub datasets: Vec<String>,
    /// Epochs of the training that the values were measured after, where known.
    pub epochs: Option<u64>,
    /// In the order of the keys, each once.
    pub rows: Vec<Row>,
}

impl Rows {
    /// A metric of a table that `nasfw bench import` made; by default its first one of validation. Rows without the metric
    /// are left out.
    ///
    /// # Errors
    /// A metric that the table lacks, and a table that can't be read.
    pub fn of_table(family: &Family, table: &Table, metric: Option<&str>) -> Result<Self> {
        let scores: Vec<&str> = (table.header().metrics.iter())
            .filter(|m| m.score)
            .map(|m| m.name.as_str())
            .collect();
        let metric = chosen(&scores, metric, table.path())?;
        let at = (table.header().metrics.iter())
            .position(|m| m.name == metric)
            .unwrap_or_default();
        let (mut keys, mut values) = (vec![], vec![]);
        table.each_row(|key, row| {
            if let Some(value) = row.mean(at) {
                keys.push(key.to_vec());
                values.push(value);
            }
        })?;
        let mut rows = Collected::default();
        for ((genotype, value), name) in (family.genotypes)(&keys)?
            .into_iter()
            .zip(values)
            .zip(&keys)
        {
            let unknown = || Error::Data {
                path: table.path().into(),
                problem: format!("no architecture has the key {}", (family.show_key)(name)),
                help: format!("make it again: `nasfw bench import {} FILE`", family.name),
            };
            rows.add(genotype.ok_or_else(unknown)?, value)
                .map_err(|why| Error::Data {
                    path: table.path().into(),
                    problem: why,
                    help: format!("make it again: `nasfw bench import {} FILE`", family.name),
                })?;
        }
        let epochs = metric
            .rsplit_once('@')
            .map_or(Some(u64::from(family.epochs)), |m| m.1.parse().ok());
        Ok(Self {
            spaces: family.spaces.iter().map(|s| (*s).to_owned()).collect(),
            source: table.header().source.clone(),
            datasets: of_metric(&metric, family.datasets),
            epochs,
            rows: rows.done(),
            metric,
        })
    }

    /// A CSV file, plain or gzip-compressed: a column `genotype`, and one of numbers that is named after the metric. Where
    /// there are several of numbers, `metric` says which. The architectures are those of `space`; without it of the space
    /// that the form of the genotypes says.
    ///
    /// # Errors
    /// What is wrong with the file, and in which line: columns that are missing, values that are no numbers, genotypes that
    /// can't be read or are of another space, one architecture with two values.
    pub fn of_csv(path: &Path, space: Option<&str>, metric: Option<&str>) -> Result<Self> {
        let mut csv = Csv::of_any(path, source::open(path)?, HELP)?;
        csv.need(&[GENOTYPE])?;
        let others: Vec<&str> = csv
            .columns()
            .iter()
            .map(String::as_str)
            .filter(|c| *c != GENOTYPE)
            .collect();
        let metric = match (others.as_slice(), metric) {
            ([], _) => {
                return Err(csv.bad("line 1: there is no column of values beside `genotype`"));
            }
            (several, None) if several.len() > 1 => {
                return Err(Error::Data {
                    path: path.into(),
                    problem: format!(
                        "line 1: it has several columns of values: {}",
                        several.join(", ")
                    ),
                    help: "say which: `--metric NAME`".into(),
                });
            }
            (all, metric) => chosen(all, metric, path)?,
        };
        let mut of = space.map(Of::named).transpose()?;
        let mut rows = Collected::default();
        while csv.next()? {
            let Some(value) = csv.number(&metric)? else {
                return Err(csv.wrong(&metric, "a number is expected, there is none"));
            };
            let genotype = formats::read(csv.text(GENOTYPE))
                .map_err(|e| csv.wrong(GENOTYPE, e.to_string()))?;
            let of = match &mut of {
                Some(of) => of,
                none => none.insert(Of::form(&genotype.space)?),
            };
            let genotype = of.own(genotype).map_err(|why| csv.wrong(GENOTYPE, why))?;
            rows.add(genotype, value)
                .map_err(|why| csv.wrong(GENOTYPE, why))?;
        }
        Ok(Self {
            metric,
            spaces: of.map(|of| of.spaces()).unwrap_or_default(),
            source: source::name(path),
            datasets: vec![],
            epochs: None,
            rows: rows.done(),
        })
    }

    /// Both together.
    ///
    /// # Errors
    /// Where they do not have the same metric and spaces, and where they know different values of one architecture.
    pub fn and(self, other: Self) -> Result<Self> {
        let refused = |why: String| Error::Incompatible {
            what: format!("fitting {} and {} together", self.source, other.source),
            why,
            help: "fit them one by one, or name what they share: `--metric NAME`, `--space SPACE`"
                .into(),
        };
        if self.metric != other.metric {
            return Err(refused(format!(
                "one has `{}`, one `{}`",
                self.metric, other.metric
            )));
        }
        if self.spaces != other.spaces {
            let [one, two] = [&self, &other].map(|r| r.spaces.join(", "));
            return Err(refused(format!("one is of {one}, one of {two}")));
        }
        let mut rows = Collected::default();
        for row in self.rows.iter().chain(&other.rows) {
            rows.add(row.genotype.clone(), row.value)
                .map_err(&refused)?;
        }
        let same_epochs = self.epochs == other.epochs;
        Ok(Self {
            source: format!("{}, {}", self.source, other.source),
            rows: rows.done(),
            datasets: [self.datasets, other.datasets]
                .into_iter()
                .find(|d| !d.is_empty())
                .unwrap_or_default(),
            epochs: self.epochs.filter(|_| same_epochs),
            ..self
        })
    }
}

/// Rows by their keys.
#[derive(Default)]
struct Collected(BTreeMap<Key, Row>);

impl Collected {
    /// Adds a row, or says what is wrong with it.
    fn add(&mut self, genotype: Genotype, value: f64) -> Result<(), String> {
        if !value.is_finite() {
            return Err(format!("its value is {value}"));
        }
        let key = key(&genotype).map_err(|e| e.to_string())?;
        let key = key.ok_or(
            "the benchmark can't contain it: it has too many edges, no path, or unknown operations",
        )?;
        let row = Row {
            genotype,
            key,
            value,
        };
        match self.0.insert(key, row) {
            Some(before) if before.value != value => Err(format!(
                "this architecture has been seen before, with the value {}, now {value}",
                before.value
            )),
            _ => Ok(()),
        }
    }

    fn done(self) -> Vec<Row> {
        self.0.into_values().collect()
    }
}

/// The metric that is meant of those that are there: without a wish the first one of validation after a whole training,
/// else the first one.
fn chosen(all: &[&str], wanted: Option<&str>, path: &Path) -> Result<String> {
    let found = match wanted {
        Some(name) => all.iter().find(|m| **m == name),
        None => {
            let whole = || all.iter().filter(|m| !m.contains('@'));
            whole()
                .find(|m| m.starts_with("valid"))
                .or(whole().next())
                .or(all.first())
        }
    };
    found.map(|m| (*m).to_owned()).ok_or_else(|| Error::Data {
        path: path.into(),
        problem: format!("it has no metric `{}`", wanted.unwrap_or_default()),
        help: format!("it has {}: `--metric NAME`", all.join(", ")),
    })
}

/// The datasets that a metric says it was measured on, or all.
fn of_metric(metric: &str, datasets: &[&str]) -> Vec<String> {
    let base = metric.split('@').next().unwrap_or(metric);
    let own = datasets.iter().filter(|d| base.ends_with(&format!("/{d}")));
    let own: Vec<String> = own.map(|d| (*d).to_owned()).collect();
    match own.is_empty() {
        true => datasets.iter().map(|d| (*d).to_owned()).collect(),
        false => own,
    }
}

/// The space of a file's architectures.
struct Of {
    name: String,
    /// Where it can be asked what it contains.
    space: Option<Box<dyn SearchSpace>>,
}

impl Of {
    /// A space with its default settings.
    fn named(name: &str) -> Result<Self> {
        let space = match is_nasbench101(name) {
            true => None,
            false => Some(registered(name)?.build()?),
        };
        Ok(Self {
            name: name.into(),
            space,
        })
    }

    /// The space that the form of a genotype says.
    fn form(name: &str) -> Result<Self> {
        Self::named(name).map_err(|e| Error::Incompatible {
            what: format!("genotypes of space `{name}`"),
            why: e.to_string(),
            help: "say which space they are of: `--space SPACE`; `nasfw list spaces` shows all"
                .into(),
        })
    }

    fn spaces(self) -> Vec<String> {
        match is_nasbench101(&self.name) {
            true => (nasbench101::FAMILY.spaces.iter())
                .map(|s| (*s).to_owned())
                .collect(),
            false => vec![self.name],
        }
    }

    /// An architecture as one of this space, or why it is none.
    fn own(&self, mut genotype: Genotype) -> Result<Genotype, String> {
        if is_nasbench101(&genotype.space) && is_nasbench101(&self.name) {
            return Ok(genotype);
        }
        if is_of_form(&genotype.space) {
            genotype.space.clone_from(&self.name);
        }
        if genotype.space != self.name {
            return Err(format!(
                "this is one of space `{}`, not of `{}`",
                genotype.space, self.name
            ));
        }
        match self.space.as_ref().map(|space| space.choice(&genotype)) {
            Some(Err(e)) => Err(format!("space `{}` does not contain it: {e}", self.name)),
            _ => Ok(genotype),
        }
    }
}

/// Whether texts of DARTS's form are read as of this space: they may be of any other that has such cells.
pub(super) fn is_of_form(space: &str) -> bool {
    ["darts", "robust-s4"].contains(&space)
}

fn is_nasbench101(space: &str) -> bool {
    nasbench101::FAMILY.spaces.contains(&space)
}

/// The settings of a space's defaults.
fn registered(name: &str) -> Result<Box<dyn SpaceConfig>> {
    let plugin = Registry::load()?.get(Kind::Space, name)?;
    plugin.space(&plugin.default_section()?)
}
