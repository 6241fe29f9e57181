//! A table as a benchmark of a search.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use nasfw_framework::prelude::*;
use serde_json::Value;

use super::family::Family;
use super::format::{Row, Table};

/// The best of a space as its authors published it, for tables that know more than the space.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// Metric and its best value, in percent.
    pub optimum: [(&'static str, f64); 2],
    /// In words.
    pub source: &'static str,
}

/// What opens a table for a search.
#[derive(Debug, Clone, Copy)]
pub struct TableConfig<'a> {
    /// Which benchmark.
    pub family: &'static Family,
    /// Its file; empty for the default one.
    pub file: &'a Path,
    /// The space's settings; `name` counts.
    pub space: &'a Value,
}

impl TableConfig<'_> {
    /// Opens the table. Where no file is named and none has been imported there is none, and a message says what to
    /// type.
    ///
    /// `published` is the best of the space, where the table knows all architectures of more than that space; such a
    /// table gives no regret of other metrics.
    ///
    /// # Errors
    /// A space that the benchmark does not know; a file that is named but not there, or that can't be used.
    pub fn open(self, published: Option<&Published>) -> Result<Option<Box<dyn Benchmark>>> {
        let family = self.family;
        let space = self
            .space
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !family.spaces.contains(&space) {
            return Err(Error::Incompatible {
                what: format!("benchmark `{}` on space `{space}`", family.name),
                why: format!("it knows {}", family.spaces.join(", ")),
                help: "`--set benchmark.name=auto` takes the one that fits, `none` runs without"
                    .into(),
            });
        }
        let named = !self.file.as_os_str().is_empty();
        let default = family.default_file();
        let path = match (named, &default) {
            (true, _) => self.file,
            (false, Ok(path)) if path.exists() => path,
            (false, _) => {
                tracing::info!(
                    "no table of {name} is imported, so accuracy and regret are not reported; \
                     `nasfw bench import {name} FILE` imports one (docs/tables.md)",
                    name = family.name
                );
                return Ok(None);
            }
        };
        let table = family.open(path)?;
        let header = table.header();
        let (optimum, of) = match published.filter(|_| header.complete()) {
            Some(p) => (
                p.optimum
                    .iter()
                    .map(|(n, v)| ((*n).to_owned(), *v))
                    .collect(),
                p.source.to_owned(),
            ),
            None => (
                header.optimum.clone(),
                format!("the best of {}", header.coverage()),
            ),
        };
        let provenance = Provenance {
            source: format!(
                "{} ({}, from {})",
                header.name,
                header.coverage(),
                header.source
            ),
            checksum: Some(table.checksum().to_owned()),
            optimum: of,
        };
        Ok(Some(Box::new(Lookup {
            family,
            table,
            optimum,
            provenance,
            columns: OnceLock::new(),
        })))
    }
}

#[derive(Debug)]
struct Lookup {
    family: &'static Family,
    table: Table,
    optimum: BTreeMap<String, f64>,
    provenance: Provenance,
    /// Of the whole table, so only where a rank is asked for.
    columns: OnceLock<BTreeMap<String, Column>>,
}

/// All values of a metric.
#[derive(Debug)]
struct Column {
    ascending: Vec<f64>,
    mean: f64,
}

impl Column {
    fn new(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        Self {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            ascending: values,
        }
    }

    fn standing(&self, mine: f64) -> Standing {
        let of = self.ascending.len();
        let no_better = self.ascending.partition_point(|v| *v <= mine);
        Standing {
            rank: (of - no_better) as u64 + 1,
            of: of as u64,
            mean: self.mean,
        }
    }
}

impl Lookup {
    /// The scores by their names, as far as there are values.
    fn columns(&self) -> Result<&BTreeMap<String, Column>> {
        if let Some(columns) = self.columns.get() {
            return Ok(columns);
        }
        let scores = self.table.header().metrics.iter().enumerate();
        let scores: Vec<_> = scores.filter(|(_, m)| m.score).collect();
        let mut values = vec![vec![]; scores.len()];
        self.table.each_row(|_, row| {
            for ((i, _), values) in scores.iter().zip(&mut values) {
                values.extend(row.mean(*i));
            }
        })?;
        let names = scores.into_iter().map(|(_, m)| m.name.clone());
        let known = names.zip(values).filter(|(_, v)| !v.is_empty());
        let columns = known.map(|(name, values)| (name, Column::new(values)));
        Ok(self.columns.get_or_init(|| columns.collect()))
    }
}

impl Benchmark for Lookup {
    fn query(&self, genotype: &Genotype) -> Result<Option<Score>> {
        let row = match (self.family.key)(genotype)? {
            Some(key) => self.table.row(&key)?,
            None => None,
        };
        Ok(row.map(|row| score(self.family, &self.table, &row)))
    }

    fn optimum(&self) -> &BTreeMap<String, f64> {
        &self.optimum
    }

    fn provenance(&self) -> Provenance {
        self.provenance.clone()
    }

    fn standing(&self, score: &Score) -> Result<BTreeMap<String, Standing>> {
        let columns = self.columns()?.iter();
        let asked = columns.filter_map(|(name, column)| {
            let mine = score.metrics.get(name)?;
            Some((name.clone(), column.standing(*mine)))
        });
        Ok(asked.collect())
    }

    fn epochs(&self) -> Option<u64> {
        Some(u64::from(self.family.epochs))
    }

    fn datasets(&self) -> Vec<String> {
        self.family
            .datasets
            .iter()
            .map(|d| (*d).to_owned())
            .collect()
    }
}

/// The score that a row of a table stands for. Its seconds are the first training times of the row: those on CIFAR-10,
/// for the full number of epochs.
pub(super) fn score(family: &Family, table: &Table, row: &Row) -> Score {
    let means = |scores: bool| {
        let metrics = table.header().metrics.iter().enumerate();
        metrics
            .filter(move |(_, m)| m.score == scores)
            .filter_map(|(i, m)| Some((m.name.clone(), row.mean(i)?)))
    };
    let (metrics, facts): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (means(true).collect(), means(false).collect());
    Score {
        predicted: BTreeMap::new(),
        seconds: means(false)
            .find(|(name, _)| name.starts_with("train-seconds"))
            .map(|(_, s)| s),
        costs: metrics
            .keys()
            .filter_map(|metric| Some((metric.clone(), cost(family, metric, &facts)?)))
            .collect(),
        metrics,
        facts,
    }
}

/// Simulated seconds of the training that shows a metric of validation: `train-seconds` of the same dataset and as many
/// epochs (`valid/cifar10@12` → `train-seconds/cifar10@12`) where the table has that, else their share of the full
/// training.
fn cost(family: &Family, metric: &str, facts: &BTreeMap<String, f64>) -> Option<f64> {
    let of = metric.strip_prefix("valid")?;
    let known = |of: &str| facts.get(&format!("train-seconds{of}")).copied();
    known(of).or_else(|| {
        let (dataset, epochs) = of.split_once('@')?;
        Some(known(dataset)? * epochs.parse::<f64>().ok()? / f64::from(family.epochs))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{nasbench101, nasbench201};
    use super::*;

    #[test]
    fn what_a_metric_costs() {
        let facts = |known: &[(&str, f64)]| {
            let known = known.iter().map(|(n, s)| ((*n).to_owned(), *s));
            known.collect::<BTreeMap<_, _>>()
        };
        let of_201 = facts(&[("train-seconds/cifar10", 1000.0), ("params/cifar10", 7.0)]);
        let of_101 = facts(&[("train-seconds", 1080.0), ("train-seconds@4", 50.0)]);
        for (family, facts, metric, seconds) in [
            (&nasbench201::FAMILY, &of_201, "valid/cifar10", Some(1000.0)),
            (
                &nasbench201::FAMILY,
                &of_201,
                "valid/cifar10@12",
                Some(60.0),
            ),
            (&nasbench201::FAMILY, &of_201, "valid/cifar100@12", None),
            (&nasbench201::FAMILY, &of_201, "test/cifar10", None),
            (&nasbench101::FAMILY, &of_101, "valid", Some(1080.0)),
            (&nasbench101::FAMILY, &of_101, "valid@4", Some(50.0)),
            (&nasbench101::FAMILY, &of_101, "valid@12", Some(120.0)),
        ] {
            assert_eq!(cost(family, metric, facts), seconds, "{metric}");
        }
    }
}
