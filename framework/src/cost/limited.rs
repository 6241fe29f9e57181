//! A space under limits.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::best::best;
use super::limits::{Asked, Limit, Limits};
use crate::arch::{ArchSpec, Choice, Genotype, Marginals, Row};
use crate::error::{Error, Result};
use crate::network::{LossOptions, Network, NetworkOptions};
use crate::rng::{Rng, Streams};
use crate::space::{SearchSpace, Task};
use crate::supernet::{Supernet, SupernetOptions};

/// Random architectures that are drawn until one meets the limits.
const DRAWN: usize = 200;
/// Random architectures that are looked at for one that meets all limits, where none was found otherwise.
const LOOKED_AT: u64 = 100;

/// The architectures of a space that meet limits: [`SearchSpace::derive`] gives the likeliest of them, and
/// [`SearchSpace::random`] draws among them. Everything else is the space's.
pub struct Limited {
    base: Box<dyn SearchSpace>,
    limits: Arc<Limits>,
    /// An architecture that meets the limits.
    meets: Choice,
}

impl Limited {
    /// A space under limits on its networks.
    ///
    /// # Errors
    /// A space without standalone networks, limits that no architecture meets, and whatever the costs have to say.
    pub fn new(base: Box<dyn SearchSpace>, asked: &Asked, task: Task) -> Result<Self> {
        let limits = Arc::new(Limits::new(asked, base.as_ref(), task)?);
        let meets = one_that_meets(&limits, base.as_ref())?;
        Ok(Self {
            base,
            limits,
            meets,
        })
    }

    /// The limits.
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits)
    }
}

fn one_that_meets(limits: &Limits, space: &dyn SearchSpace) -> Result<Choice> {
    let groups = space.spec().groups().iter();
    let uniform = |row: &Row| vec![1.0; row.candidates.len()];
    let uniform: Marginals = groups
        .map(|group| group.rows.iter().map(uniform).collect())
        .collect();
    if let Some(found) = best(limits, space, &uniform) {
        return Ok(found);
    }
    let streams = Streams::new(0);
    let random = (0..LOOKED_AT).map(|i| space.random(&mut streams.at("limits", i)));
    let looked: Vec<Choice> = random.collect();
    if let Some(found) = looked.iter().find(|choice| limits.fits(space, choice)) {
        return Ok(found.clone());
    }
    let all = limits.all().iter();
    let (names, cheapest): (Vec<String>, Vec<String>) = all
        .map(|limit| {
            let most = limit.model().cost().unit().show(limit.most());
            let name = format!("{} {most}", limit.name());
            (name, cheapest(limit, space, &looked))
        })
        .unzip();
    Err(Error::Incompatible {
        what: format!("the limit of {}", names.join(" and ")),
        why: format!(
            "no architecture of space `{}` was found that meets it: {}",
            space.genotype(&looked[0]).space,
            cheapest.join("; ")
        ),
        help: "raise the limit, or count smaller networks: `--set limits.network.channels=N`, \
               `--set limits.network.cells=N`"
            .into(),
    })
}

/// What the cheapest architecture costs, in words.
fn cheapest(limit: &Limit, space: &dyn SearchSpace, looked: &[Choice]) -> String {
    let (name, unit) = (limit.name(), limit.model().cost().unit());
    if let Some(least) = limit.model().least() {
        return format!("the cheapest has {name} {}", unit.show(least));
    }
    let costs = looked
        .iter()
        .filter_map(|c| limit.model().of(space, c).ok());
    let least = unit.show(costs.fold(f64::INFINITY, f64::min));
    format!(
        "the cheapest of {} random ones has {name} {least}",
        looked.len()
    )
}

impl SearchSpace for Limited {
    fn spec(&self) -> &ArchSpec {
        self.base.spec()
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        self.base.supernet(task, options)
    }

    fn without_effect(&self) -> Vec<&'static str> {
        self.base.without_effect()
    }

    fn scalars(&self) -> Vec<&'static str> {
        self.base.scalars()
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        self.base.genotype(choice)
    }

    fn derive(&self, marginals: &Marginals) -> Choice {
        let choice = self.base.derive(marginals);
        if self.limits.fits(self.base.as_ref(), &choice) {
            return choice;
        }
        let best = best(&self.limits, self.base.as_ref(), marginals);
        best.unwrap_or_else(|| self.meets.clone())
    }

    /// Uniform where the limits leave one of a hundred architectures or more. Where they leave fewer, the likeliest of random
    /// weights.
    fn random(&self, rng: &mut Rng) -> Choice {
        use rand::RngExt;
        for _ in 0..DRAWN {
            let choice = self.base.random(rng);
            if self.limits.fits(self.base.as_ref(), &choice) {
                return choice;
            }
        }
        let mut marginals: Marginals = vec![];
        for group in self.spec().groups() {
            let mut row = |n: usize| (0..n).map(|_| rng.random::<f64>()).collect();
            let rows = group.rows.iter().map(|r| row(r.candidates.len()));
            marginals.push(rows.collect());
        }
        self.derive(&marginals)
    }

    fn choice(&self, genotype: &Genotype) -> Result<Choice> {
        self.base.choice(genotype)
    }

    fn network(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
    ) -> Result<Network> {
        self.base.network(genotype, task, options)
    }

    fn alone(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
        loss: LossOptions,
    ) -> Result<Box<dyn Supernet>> {
        self.base.alone(genotype, task, options, loss)
    }

    fn recipe(&self) -> &str {
        self.base.recipe()
    }

    fn facts(&self, genotype: &Genotype) -> Map<String, Value> {
        self.base.facts(genotype)
    }
}
