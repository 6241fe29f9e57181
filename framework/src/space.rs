//! Search spaces.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::arch::{ArchSpec, Choice, Genotype, Marginals};
use crate::error::{Error, Result};
use crate::network::{LossOptions, Network, NetworkOptions, Standalone};
use crate::rng::Rng;
use crate::settings::Validator;
use crate::supernet::{Supernet, SupernetOptions};

pub use crate::dataset::Task;

/// The recipe of DARTS's networks on CIFAR-10 ([`SearchSpace::recipe`]).
pub const RECIPE: &str = "[strategy]\npreset = \"darts-cifar\"\n";

/// A search space: what there is to decide, the network that holds all of it, and what a decision means.
pub trait SearchSpace: Send + Sync {
    /// What there is to decide.
    fn spec(&self) -> &ArchSpec;

    /// The weight-sharing network for a task.
    ///
    /// # Errors
    /// Images that are too small, and options that this space does not have.
    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>>;

    /// Options of the supernet (fields of [`SupernetOptions`]) that this space takes though they mean nothing in it: a
    /// loss that is a formula has no channels, and where no candidate is a skip connection there is none to drop.
    /// So do `"active"` and `"offsets"` of an architecture ([`crate::arch::RelaxedArch`]) where rows put nothing out.
    fn without_effect(&self) -> Vec<&'static str> {
        vec![]
    }

    /// Scalars of an architecture that networks of this space read whatever their options say. Others only have an effect
    /// where an option asked for them.
    fn scalars(&self) -> Vec<&'static str> {
        vec![]
    }

    /// The architecture that a choice stands for. `choice` fits [`SearchSpace::spec`].
    fn genotype(&self, choice: &Choice) -> Genotype;

    /// The space's rule from weights to an architecture. The default keeps the best of every row. A space in which
    /// rows compete, as the edges into a node of DARTS do, leaves the rows that lose empty.
    fn derive(&self, marginals: &Marginals) -> Choice {
        self.spec().top(marginals)
    }

    /// An architecture drawn uniformly from those that [`SearchSpace::derive`] can give.
    fn random(&self, rng: &mut Rng) -> Choice {
        self.spec().uniform(rng)
    }

    /// The inverse of [`SearchSpace::genotype`], by enumeration unless a space knows better.
    ///
    /// # Errors
    /// A genotype of another space, or one that this space does not contain.
    fn choice(&self, genotype: &Genotype) -> Result<Choice> {
        let invalid = |why: &str| Error::Invalid {
            what: "genotype".into(),
            why: why.into(),
        };
        if self.spec().size() > 1e6 {
            return Err(invalid("this space is too large to look the genotype up"));
        }
        self.spec()
            .enumerate()
            .find(|c| self.genotype(c) == *genotype)
            .ok_or_else(|| invalid("it is not in this space"))
    }

    /// The network that a genotype of this space is when it is trained alone. `self` has the settings that the genotype
    /// was found with, but for those of [`SpaceConfig::search_only`]: what a setting makes of an operation or a cell is to
    /// be made here, too, while `options` say how large the network is.
    ///
    /// # Errors
    /// Spaces without one; a genotype that this space can't build; images that are too small; sizes that don't fit.
    fn network(
        &self,
        genotype: &Genotype,
        _task: Task,
        _options: &NetworkOptions,
    ) -> Result<Network> {
        Err(Error::Incompatible {
            what: format!("a standalone network of space `{}`", genotype.space),
            why: "this space has no standalone network".into(),
            help: "choose another space; `nasfw list spaces` shows all".into(),
        })
    }

    /// The same network as what the trainer trains: its parameters, its forward pass, its loss. The default is
    /// [`SearchSpace::network`]; a space whose networks are no graphs of known operations, but code, implements this one.
    ///
    /// # Errors
    /// As [`SearchSpace::network`]; networks to which no path leads from the images.
    fn alone(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
        loss: LossOptions,
    ) -> Result<Box<dyn Supernet>> {
        let network = self.network(genotype, task, options)?;
        Ok(Box::new(Standalone::new(network, loss)?))
    }

    /// How this space's networks are trained alone unless something else is asked for (`nasfw retrain`): TOML with the
    /// sections `[strategy]`, `[trainer]` and `[space]`, laid over the defaults of the strategy `train` and of the space
    /// `standalone`. `preset` in `[strategy]` names published settings of both, which the rest is laid over. The default
    /// is DARTS's on CIFAR-10.
    fn recipe(&self) -> &str {
        RECIPE
    }

    /// Facts for `result.json` beside the genotype, for example a benchmark's own encoding.
    fn facts(&self, _genotype: &Genotype) -> Map<String, Value> {
        Map::new()
    }
}

/// Different architectures of a space, drawn uniformly: `count` of them, or fewer where the space has fewer.
pub fn different(space: &dyn SearchSpace, count: usize, rng: &mut Rng) -> Vec<(Choice, Genotype)> {
    let (mut seen, mut drawn) = (BTreeSet::new(), vec![]);
    // A space can have fewer architectures than it has choices.
    for _ in 0..count.saturating_mul(20) {
        if drawn.len() == count {
            break;
        }
        let choice = space.random(rng);
        let genotype = space.genotype(&choice);
        if seen.insert(genotype.to_string()) {
            drawn.push((choice, genotype));
        }
    }
    drawn
}

/// The typed settings of a space, as they stand in the configuration and are kept with a run.
#[typetag::serde(tag = "name")]
pub trait SpaceConfig: Send + Sync + std::fmt::Debug {
    /// Builds the space.
    fn build(&self) -> Result<Box<dyn SearchSpace>>;

    /// The plugin's name, as people know it.
    fn name(&self) -> &str {
        self.typetag_name()
    }

    /// Names of the settings that shape the network of the search and mean nothing for an architecture: how large it is,
    /// above all. All others come along when an architecture is trained alone; these have their defaults there.
    fn search_only(&self) -> &'static [&'static str] {
        &["channels", "cells"]
    }

    /// Checks ranges before anything is built.
    fn validate(&self, _v: &mut Validator) {}
}
