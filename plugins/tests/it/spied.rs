//! Strategies on a space whose supernet tells which architectures it was given.

use std::cell::RefCell;
use std::sync::atomic::AtomicBool;

use nasfw_framework::config::{Layer, RunConfig, resolve};
use nasfw_framework::events::Event;
use nasfw_framework::register;
use nasfw_framework::registry::Parse;
use nasfw_framework::run::{self, RunFolder, read_events};
use nasfw_framework::trainer::{Job, Outcome};
use nasfw_spaces as _;
use serde::{Deserialize, Serialize};

use super::*;

/// The decisions of another space, with a supernet that is linear in them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpyConfig {
    of: String,
}

register! {
    space "spied" => SpyConfig,
    summary: "the decisions of another space, watched",
    source: "tests",
    defaults: "[space]\n# Space.\nof = \"darts\"\n[dataset]\nname = \"vim-test-data\"\n[trainer]\nbatch_size = 4\n[trainer.augment]\ncrop_padding = 0\nflip = false\n",
    example: "nasfw run --space spied",
}

#[typetag::serde(name = "spied")]
impl SpaceConfig for SpyConfig {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        Ok(Box::new(Spied {
            space: space(&self.of),
        }))
    }
}

/// A registered space with its defaults.
pub fn space(name: &str) -> Box<dyn SearchSpace> {
    let registry = Registry::load().unwrap();
    let plugin = registry.get(Plugins::Space, name).unwrap();
    let Parse::Space(parse) = plugin.parse else {
        panic!("kind")
    };
    let config = parse(&plugin.default_section().unwrap()).unwrap();
    config.build().unwrap()
}

struct Spied {
    space: Box<dyn SearchSpace>,
}

impl SearchSpace for Spied {
    fn spec(&self) -> &ArchSpec {
        self.space.spec()
    }
    fn supernet(&self, _task: Task, _options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        let mut layout = ParamLayout::new();
        let weights = layout.add("weights", &[self.spec().numel()], Init::Normal { std: 1.0 });
        Ok(Box::new(Spy { layout, weights }))
    }
    fn genotype(&self, choice: &Choice) -> Genotype {
        self.space.genotype(choice)
    }
    fn derive(&self, marginals: &Marginals) -> Choice {
        self.space.derive(marginals)
    }
    fn random(&self, rng: &mut Rng) -> Choice {
        self.space.random(rng)
    }
}

/// Weights and mask of an architecture that a supernet was given, and whether it was trained.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `[group][row][column]`.
    pub weights: Vec<Vec<Vec<f64>>>,
    pub active: Option<Vec<Vec<Vec<bool>>>>,
    pub training: bool,
}

thread_local! {
    static SEEN: RefCell<Vec<Seen>> = const { RefCell::new(vec![]) };
}

struct Spy {
    layout: ParamLayout,
    weights: ParamId,
}

impl Supernet for Spy {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }
    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        mode: Mode,
        _noise: Streams,
    ) -> Result<Tensor> {
        let rows = |m: &Tensor| Vec::<Vec<f64>>::try_from(m.detach()).unwrap();
        let seen = Seen {
            weights: arch.weights.iter().map(rows).collect(),
            active: arch.active.clone(),
            training: mode == Mode::Train,
        };
        SEEN.with_borrow_mut(|all| all.push(seen));
        let flat: Vec<Tensor> = arch.weights.iter().map(|m| m.reshape([-1])).collect();
        let sum = (Tensor::cat(&flat, 0) * &self.layout.views(weights.params)[self.weights])
            .sum(Kind::Double);
        let x = images
            .flatten(1, -1)
            .mean_dim([1i64].as_slice(), false, images.kind());
        Ok(Tensor::stack(&[&x * &sum, -x * sum], 1))
    }
}

pub struct Watched {
    pub outcome: Outcome,
    pub events: Vec<Event>,
    pub seen: Vec<Seen>,
}

/// A whole search with some settings.
pub fn watched(set: &[&str]) -> Watched {
    let base = ["device=cpu", "threads=1", "precision=double"];
    let option = |s: &&str| {
        let (key, value) = s.split_once('=').unwrap();
        (key.to_owned(), value.to_owned(), format!("--set {s}"))
    };
    let registry = Registry::load().unwrap();
    let options = base.iter().chain(set).map(option).collect();
    let resolved = resolve(&registry, &[Layer::CommandLine(options)]).unwrap();
    let config = RunConfig::new(&registry, &resolved).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path(), "run").unwrap();
    SEEN.with_borrow_mut(Vec::clear);
    let outcome = config.trainer.search(Job {
        config: &config,
        run: &run,
        listeners: vec![],
        interrupt: &AtomicBool::new(false),
    });
    Watched {
        outcome: outcome.unwrap(),
        events: read_events(&run.path().join(run::EVENTS)).unwrap(),
        seen: SEEN.with_borrow_mut(std::mem::take),
    }
}
