//! A surrogate as a benchmark of a search.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::PoisonError;

use nasfw_framework::{prelude::*, register};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::features::features;
use super::figures::Figures;
use super::file::{About, Surrogate, VERSION};
use super::fit::Fitted;
use super::key::key;
use super::model::{LEVELS, Prediction};
use super::rows::{Rows, is_of_form};

/// Settings of the benchmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurrogateConfig {
    /// The surrogate's file.
    #[serde(default)]
    pub file: PathBuf,
}

register! {
    benchmark "surrogate" => SurrogateConfig,
    summary: "a table of architectures and values, and a model that predicts those of all others: `nasfw bench fit`",
    source: "nasfw; the idea of a surrogate benchmark is that of Zela et al. 2022, ICLR (NAS-Bench-301)",
    defaults: "[benchmark]\n\
               # The file that `nasfw bench fit TABLE -o FILE` made.\n\
               file = \"\"\n",
    example: "nasfw run --strategy regularized-evolution --space nasbench1shot1-s3 \
              --set benchmark.name=surrogate --set benchmark.file=nasbench101.surrogate",
}

#[typetag::serde(name = "surrogate")]
impl BenchmarkConfig for SurrogateConfig {
    fn open(&self, space: &Value) -> Result<Option<Box<dyn Benchmark>>> {
        if self.file.as_os_str().is_empty() {
            return Err(Error::Incompatible {
                what: "benchmark `surrogate`".into(),
                why: "no file is named".into(),
                help: "`nasfw bench fit TABLE -o FILE` makes one, `--set benchmark.file=FILE` names it".into(),
            });
        }
        let surrogate = Surrogate::open(&self.file)?;
        let space = space
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        surrogate.check_space(space)?;
        Ok(Some(Box::new(surrogate)))
    }
}

/// What a surrogate says of an architecture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Answer {
    /// Its value is known.
    Measured(f64),
    /// Its value is not known.
    Predicted(Prediction),
}

impl Surrogate {
    /// Of rows, a model of them, and what cross-validation said.
    pub fn new(rows: Rows, fitted: Fitted, figures: Figures, seed: u64) -> Self {
        let values: Vec<f64> = rows.rows.iter().map(|r| r.value).collect();
        let best = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Self {
            optimum: [(rows.metric.clone(), best)].into(),
            about: About {
                version: VERSION,
                metric: rows.metric,
                spaces: rows.spaces,
                source: rows.source,
                datasets: rows.datasets,
                epochs: rows.epochs,
                seed,
                rows: values.len(),
                figures,
                curve: fitted.model.curve.clone(),
                calibration: fitted.model.calibration.clone(),
                digest: String::new(),
            },
            keys: rows.rows.iter().map(|r| r.key).collect(),
            values,
            model: fitted.model,
        }
    }

    /// What is known or predicted of an architecture; none of a cell that no benchmark can contain.
    ///
    /// # Errors
    /// An architecture of another space.
    pub fn answer(&self, genotype: &Genotype) -> Result<Option<Answer>> {
        self.check_space(&genotype.space)?;
        let Some(key) = key(genotype)? else {
            return Ok(None);
        };
        Ok(Some(match self.keys.binary_search(&key) {
            Ok(at) => Answer::Measured(self.values[at]),
            Err(_) => Answer::Predicted(self.model.predict(&features(genotype))?),
        }))
    }

    /// Number of networks that predict.
    pub fn networks(&self) -> usize {
        let members = self.model.members.lock();
        members.unwrap_or_else(PoisonError::into_inner).len()
    }

    /// An architecture as one of this surrogate's space, where it is told apart by nothing but its name: texts of DARTS's form
    /// are read as of one space and may be of any that has such cells.
    pub fn as_own(&self, mut genotype: Genotype) -> Genotype {
        let [space] = self.about.spaces.as_slice() else {
            return genotype;
        };
        if is_of_form(&genotype.space) {
            genotype.space.clone_from(space);
        }
        genotype
    }

    fn check_space(&self, space: &str) -> Result<()> {
        match self.about.spaces.iter().any(|s| s == space) {
            true => Ok(()),
            false => Err(Error::Incompatible {
                what: format!("a surrogate of {} on space `{space}`", self.about.source),
                why: format!("it knows architectures of {}", self.about.spaces.join(", ")),
                help: "fit one of this space, `nasfw bench fit TABLE --space SPACE -o FILE`, or run without: \
                       `--set benchmark.name=none`"
                    .into(),
            }),
        }
    }
}

impl Benchmark for Surrogate {
    fn query(&self, genotype: &Genotype) -> Result<Option<Score>> {
        let name = &self.about.metric;
        let score = |value: f64| Score {
            metrics: [(name.clone(), value)].into(),
            ..Score::default()
        };
        Ok(self.answer(genotype)?.map(|answer| match answer {
            Answer::Measured(value) => score(value),
            Answer::Predicted(p) => Score {
                predicted: [(name.clone(), p.intervals[LEVELS.len() - 1])].into(),
                ..score(p.value)
            },
        }))
    }

    fn optimum(&self) -> &BTreeMap<String, f64> {
        &self.optimum
    }

    fn provenance(&self) -> Provenance {
        let About {
            source,
            rows,
            metric,
            figures,
            ..
        } = &self.about;
        Provenance {
            source: format!(
                "surrogate of {source} ({rows} architectures are known, others are predicted; held-out ones: {figures})"
            ),
            checksum: Some(self.about.digest.clone()),
            optimum: format!(
                "the best `{metric}` of the {rows} architectures that are known; none is predicted to be better"
            ),
        }
    }

    fn epochs(&self) -> Option<u64> {
        self.about.epochs
    }

    fn datasets(&self) -> Vec<String> {
        self.about.datasets.clone()
    }
}
