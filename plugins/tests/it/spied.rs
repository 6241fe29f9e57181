//! Strategies on a space whose supernet tells which architectures it was given.

use std::cell::RefCell;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use nasfw_framework::events::Event;
use nasfw_framework::listen::{LossTaken, Vector, Vectors};
use nasfw_framework::ranks::Ranks;
use nasfw_framework::register;
use nasfw_framework::registry::Parse;
use nasfw_framework::run::{self, RunFolder, read_events};
use nasfw_framework::trainer::{Job, Outcome, advance};
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

/// The configuration of a small search in double precision with some settings.
pub fn configured(set: &[&str]) -> RunConfig {
    let base = ["device=cpu", "threads=1", "precision=double"];
    config_of(&[&base[..], set].concat())
}

/// A whole search with some settings.
pub fn watched(set: &[&str]) -> Watched {
    let config = configured(set);
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::create(folder.path(), "run").unwrap();
    SEEN.with_borrow_mut(Vec::clear);
    let outcome = config.trainer.search(Job {
        config: &config,
        run: &run,
        listeners: vec![],
        interrupt: &AtomicBool::new(false),
        ranks: Ranks::alone(),
    });
    Watched {
        outcome: outcome.unwrap(),
        events: read_events(&run.path().join(run::EVENTS)).unwrap(),
        seen: SEEN.with_borrow_mut(std::mem::take),
    }
}

/// A search before its first step, its logits (or whatever φ is) moved away from the start.
pub fn begun(set: &[&str], away: f64) -> (Search, Box<dyn Strategy>) {
    let config = configured(set);
    let (mut search, strategy) = config.trainer.start(&config).unwrap();
    search.update_phi(|phi| {
        let rng = &mut Streams::new(7).at("away", 0);
        let noise = nasfw_framework::rng::normal(rng, &phi.size(), Kind::Double, Device::Cpu);
        let _ = phi.g_add_(&(noise * away));
    });
    (search, strategy)
}

/// What a search did in a step: losses with their architectures, and what the two vectors descended.
#[derive(Default)]
pub struct Done {
    /// Split, weights `[group][row][column]` and value of every loss.
    pub losses: Vec<(Option<Split>, Marginals, f64)>,
    /// Gradients of every update of θ.
    pub theta: Vec<Tensor>,
    /// Gradients of every update of φ; none of one by a rule of the strategy's own.
    pub phi: Vec<Option<Tensor>>,
}

impl Listener for Done {
    fn loss(&mut self, taken: LossTaken<'_>) {
        let rows = |m: &Tensor| Vec::<Vec<f64>>::try_from(m.detach()).unwrap();
        let weights = taken.arch.weights.iter().map(rows).collect();
        let value = taken.loss.double_value(&[]);
        self.losses.push((taken.batch.split, weights, value));
    }

    fn moves(&mut self, of: Vector, gradient: Option<&Tensor>, _at: Vectors<'_>) {
        let gradient = gradient.map(|g| g.detach().copy());
        match of {
            Vector::Theta => self.theta.extend(gradient),
            Vector::Phi => self.phi.push(gradient),
        }
    }
}

/// One step.
pub fn stepped(search: &mut Search, strategy: &mut dyn Strategy) -> Done {
    let done = Arc::new(Mutex::new(Done::default()));
    let listener: SharedListener = done.clone();
    search.listen(&listener);
    advance(search, strategy).unwrap();
    std::mem::take(&mut *done.lock().unwrap())
}
