//! A landscape with a planted best architecture and tunable coupling between rows.
//!
//! Let a* be the planted choice and d another one, the decoy. With coupling c an architecture is worth
//!
//! (1 − c) · mean over rows of \[a = a*\]  +  c · (mean over neighbouring rows of \[both = a*\]
//!                                             + 0.9 · mean over rows of \[a = d\]).
//!
//! The best value is 1, at a*. With c = 0 every row shows its best candidate by itself. With c = 1 a row that is judged
//! by itself, the others being random, prefers the decoy, which leads to 0.9: the best can't be found edge by edge.

use std::collections::BTreeMap;

use nasfw_framework::prelude::*;
use nasfw_framework::{register, rng};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::{Kind, Tensor};

use super::{WITHOUT_EFFECT, grid, grid_choice, grid_genotype};

const NAME: &str = "toy-planted";
const DECOY: f64 = 0.9;

/// Settings of the landscape.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planted {
    /// Rows.
    pub rows: usize,
    /// Candidates of a row.
    pub candidates: usize,
    /// From 0, independent rows, to 1, rows that only count together.
    pub coupling: f64,
    /// Number of the landscape: decides a* and d.
    pub landscape: u64,
}

register! {
    space "toy-planted" => Planted,
    summary: "toy: a landscape with a planted optimum and tunable coupling between rows",
    source: "nasfw",
    defaults: r#"[space]
# Rows.
rows = 4
# Candidates of a row.
candidates = 4
# From 0, rows can be judged one by one, to 1, rows only count together and decoys mislead.
coupling = 0.3
# Number of the landscape.
landscape = 0

[dataset]
name = "toy-halves"

[trainer]
epochs = 20
batch_size = 4
checkpoint_every = 1000

[trainer.augment]
crop_padding = 0
flip = false
"#,
    example: "nasfw run --strategy vim --space toy-planted --set space.coupling=0.8",
}

#[typetag::serde(name = "toy-planted")]
impl SpaceConfig for Planted {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let names: Vec<String> = (1..=self.candidates).map(|c| format!("c{c}")).collect();
        let landscape = Landscape::new(self);
        Ok(Box::new(PlantedSpace {
            spec: grid(self.rows, &names)?,
            landscape,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("space.rows", self.rows, 2, 64);
        v.range("space.candidates", self.candidates, 2, 64);
        v.range("space.coupling", self.coupling, 0.0, 1.0);
    }
}

/// The landscape itself.
#[derive(Debug, Clone)]
pub struct Landscape {
    coupling: f64,
    /// a*, per row.
    pub best: Vec<usize>,
    /// d, per row.
    pub decoy: Vec<usize>,
}

impl Landscape {
    /// The landscape that settings name.
    pub fn new(config: &Planted) -> Self {
        use rand::RngExt;
        let mut rng = Streams::new(config.landscape).at("planted", 0);
        let k = config.candidates;
        let best: Vec<usize> = (0..config.rows).map(|_| rng.random_range(0..k)).collect();
        let decoy = best
            .iter()
            .map(|b| (b + rng.random_range(1..k)) % k)
            .collect();
        Self {
            coupling: config.coupling,
            best,
            decoy,
        }
    }

    /// Value of an architecture.
    pub fn value(&self, choice: &Choice) -> f64 {
        let is = |wanted: &[usize], r: usize| f64::from(choice.kept(0, r) == [wanted[r]]);
        let n = self.best.len();
        let mean = |f: &dyn Fn(usize) -> f64, n: usize| (0..n).map(f).sum::<f64>() / n as f64;
        let single = mean(&|r| is(&self.best, r), n);
        let pairs = mean(&|r| is(&self.best, r) * is(&self.best, r + 1), n - 1);
        let decoys = mean(&|r| is(&self.decoy, r), n);
        (1.0 - self.coupling) * single + self.coupling * (pairs + DECOY * decoys)
    }

    /// The multilinear extension of [`Landscape::value`] to weights `[rows, candidates]`: its expectation when rows
    /// are drawn independently. A scalar, differentiable.
    pub fn extended(&self, weights: &Tensor) -> Tensor {
        let column = |wanted: &[usize]| {
            let index: Vec<i64> = wanted.iter().map(|&i| i as i64).collect();
            let index = Tensor::from_slice(&index)
                .view([-1, 1])
                .to_device(weights.device());
            weights.gather(1, &index, false).squeeze_dim(1)
        };
        let (p, n) = (column(&self.best), self.best.len() as i64);
        let kind = weights.kind();
        let pairs = (p.narrow(0, 0, n - 1) * p.narrow(0, 1, n - 1)).mean(kind);
        p.mean(kind) * (1.0 - self.coupling)
            + (pairs + column(&self.decoy).mean(kind) * DECOY) * self.coupling
    }
}

struct PlantedSpace {
    spec: ArchSpec,
    landscape: Landscape,
}

impl SearchSpace for PlantedSpace {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    /// All options are taken; none changes the formula.
    fn supernet(&self, _task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        options.check(&self.spec)?;
        let mut layout = ParamLayout::new();
        let w = layout.add("w", &[1], Init::Normal { std: 1.0 });
        Ok(Box::new(PlantedNet {
            layout,
            w,
            landscape: self.landscape.clone(),
        }))
    }

    fn without_effect(&self) -> Vec<&'static str> {
        WITHOUT_EFFECT.to_vec()
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        grid_genotype(NAME, &self.spec, choice)
    }

    fn choice(&self, genotype: &Genotype) -> Result<Choice> {
        grid_choice(NAME, &self.spec, genotype)
    }
}

/// One weight w, which only adds w²/2 to the loss, so that θ has something to learn.
struct PlantedNet {
    layout: ParamLayout,
    w: ParamId,
    landscape: Landscape,
}

impl Supernet for PlantedNet {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn cells(&self) -> usize {
        1
    }

    /// `[value, w]`.
    fn forward(
        &self,
        weights: Weights<'_>,
        _images: &Tensor,
        arch: &RelaxedArch,
        _mode: Mode,
        _noise: Streams,
    ) -> Result<Tensor> {
        let value = self.landscape.extended(&arch.of_cell(0).weights[0]);
        let w = self.layout.views(weights.params)[self.w].get(0);
        Ok(Tensor::stack(&[value, w], 0))
    }

    fn loss(&self, output: &Tensor, _labels: &Tensor) -> Tensor {
        let (value, w) = (output.get(0), output.get(1));
        -value + 1.0 + w.square() * 0.5
    }

    /// The value stands in for the accuracy.
    fn correct(&self, output: &Tensor, labels: &Tensor) -> Tensor {
        output.get(0) * labels.numel() as f64
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlantedTable {}

register! {
    benchmark "toy-planted" => PlantedTable,
    summary: "toy: the value of every architecture of toy-planted",
    source: "nasfw",
    defaults: "[benchmark]\n",
    example: "nasfw run --strategy random --preset benchmark --space toy-planted",
    spaces: &["toy-planted"],
}

#[typetag::serde(name = "toy-planted")]
impl BenchmarkConfig for PlantedTable {
    fn open(&self, space: &Value) -> Result<Option<Box<dyn Benchmark>>> {
        let mut settings = space.clone();
        if let Some(map) = settings.as_object_mut() {
            map.remove("name");
        }
        let config: Planted =
            serde_json::from_value(settings).map_err(|e| Error::Incompatible {
                what: "benchmark `toy-planted`".into(),
                why: format!("it needs the settings of space `toy-planted`: {e}"),
                help: "use `--space toy-planted`, or `--set benchmark.name=none`".into(),
            })?;
        let space = config.build()?;
        let optimum = BTreeMap::from([("value".to_owned(), 1.0)]);
        Ok(Some(Box::new(PlantedBenchmark {
            landscape: Landscape::new(&config),
            space,
            optimum,
        })))
    }
}

struct PlantedBenchmark {
    landscape: Landscape,
    space: Box<dyn SearchSpace>,
    optimum: BTreeMap<String, f64>,
}

impl Benchmark for PlantedBenchmark {
    fn query(&self, genotype: &Genotype) -> Result<Option<Score>> {
        let value = self.landscape.value(&self.space.choice(genotype)?);
        Ok(Some(Score {
            metrics: BTreeMap::from([("value".to_owned(), value)]),
            costs: BTreeMap::from([("value".to_owned(), 1.0)]),
            ..Score::default()
        }))
    }

    fn optimum(&self) -> &BTreeMap<String, f64> {
        &self.optimum
    }

    fn provenance(&self) -> Provenance {
        Provenance {
            source: "the formula of toy-planted".into(),
            checksum: None,
            optimum: "the best of the space".into(),
        }
    }
}

/// Random weights of a landscape's shape, rows summing to one: for tests.
#[doc(hidden)]
pub fn random_weights(config: &Planted, seed: u64) -> Tensor {
    let shape = [config.rows as i64, config.candidates as i64];
    let logits = rng::normal(
        &mut Streams::new(seed).at("w", 0),
        &shape,
        Kind::Double,
        tch::Device::Cpu,
    );
    logits.softmax(-1, Kind::Double)
}
