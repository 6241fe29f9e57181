//! Search spaces of cells: what an edge may carry, how cells are stacked, and everything that follows from it, namely
//! the decisions, the weight-sharing supernet and the network of a found cell.
//!
//! DARTS, RobustDARTS's S1 to S4, NAS-Bench-201 and users' own spaces are values of [`CellSpace`].

mod cell;
mod cell_type;
mod chain;
mod mix;
mod network;
mod skeleton;
mod supernet;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use nasfw_framework::network::{Network, NetworkOptions};
use nasfw_framework::prelude::*;
use nasfw_framework::space::RECIPE;

use crate::layers::{Op, Role};
use crate::options::check_partial;
pub use cell_type::{CellEdge, CellType, Output};
pub use skeleton::{Skeleton, Stem};

/// A search space of cells.
#[derive(Debug, Clone, PartialEq)]
pub struct CellSpace {
    name: String,
    cells: Arc<Vec<CellType>>,
    skeleton: Skeleton,
    /// Channels and cells of the supernet, as [`Skeleton`] counts them.
    channels: i64,
    count: usize,
    spec: ArchSpec,
    recipe: &'static str,
}

impl CellSpace {
    /// A space of these cell types. `channels` and `count` size the supernet.
    ///
    /// # Errors
    /// Cell types that the skeleton can't stack, edges that do not lead forward, edges without candidates.
    pub fn new(
        name: &str,
        cells: Vec<CellType>,
        skeleton: Skeleton,
        channels: i64,
        count: usize,
    ) -> Result<Self> {
        skeleton.check(&cells)?;
        for cell in &cells {
            let bad = |why: String| Error::Invalid {
                what: format!("cell type `{}`", cell.name),
                why,
            };
            for (i, e) in cell.edges.iter().enumerate() {
                let place = format!("edge {}->{}", e.from, e.to);
                if e.from >= e.to || e.to >= cell.states() || e.to < cell.inputs {
                    return Err(bad(format!(
                        "{place} must lead forward, to one of the states {} to {}",
                        cell.inputs,
                        cell.states() - 1
                    )));
                }
                if e.candidates.is_empty() {
                    return Err(bad(format!("{place} has no candidates")));
                }
                if (1..e.candidates.len()).any(|c| e.candidates[..c].contains(&e.candidates[c])) {
                    return Err(bad(format!("{place} has one candidate twice")));
                }
                if i > 0 && (cell.edges[i - 1].to, cell.edges[i - 1].from) >= (e.to, e.from) {
                    return Err(bad(format!("{place} is out of order or there twice")));
                }
            }
        }
        Ok(Self {
            name: name.into(),
            spec: ArchSpec::new(cells.iter().map(CellType::group).collect())?,
            cells: Arc::new(cells),
            skeleton,
            channels,
            count,
            recipe: RECIPE,
        })
    }

    /// The same, its networks trained by another recipe ([`SearchSpace::recipe`]).
    pub fn with_recipe(self, recipe: &'static str) -> Self {
        Self { recipe, ..self }
    }
}

impl SearchSpace for CellSpace {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    fn supernet(&self, task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        options.check(&self.spec)?;
        let channels = options.channels.unwrap_or(self.channels);
        check_partial(&self.name, channels, options.partial())?;
        let count = options.cells.unwrap_or(self.count);
        let types: Vec<(usize, usize)> = self.cells.iter().map(CellType::shape).collect();
        let plan = self
            .skeleton
            .plan(&self.name, &types, task, channels, count, true)?;
        Ok(Box::new(supernet::CellSupernet::new(
            Arc::clone(&self.cells),
            &plan,
            self.skeleton.search_role(),
            options,
        )))
    }

    fn recipe(&self) -> &'static str {
        self.recipe
    }

    fn without_effect(&self) -> Vec<&'static str> {
        let mut edges = self.cells.iter().flat_map(|cell| &cell.edges);
        match edges.any(|e| e.candidates.contains(&Op::Skip)) {
            true => vec![],
            false => vec!["skip_dropout"],
        }
    }

    fn network(
        &self,
        genotype: &Genotype,
        task: Task,
        options: &NetworkOptions,
    ) -> Result<Network> {
        self.standalone(genotype, task, options, Role::Evaluation)
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        let cells = self.cells.iter().zip(choice.groups());
        Genotype {
            space: self.name.clone(),
            cells: cells.map(|(cell, kept)| cell.genotype(kept)).collect(),
        }
    }

    fn derive(&self, marginals: &Marginals) -> Choice {
        let top = self.spec.top(marginals);
        let groups = self.cells.iter().zip(top.groups()).zip(marginals);
        let derived = groups.map(|((cell, top), weights)| match cell.keep {
            Some(keep) => cell.derive(keep, weights),
            None => top.clone(),
        });
        Choice::new(derived.collect())
    }

    fn random(&self, rng: &mut Rng) -> Choice {
        Choice::new(self.cells.iter().map(|cell| cell.random(rng)).collect())
    }

    fn choice(&self, genotype: &Genotype) -> Result<Choice> {
        let invalid = |why: String| Error::Invalid {
            what: format!("genotype of {}", self.name),
            why,
        };
        let kept = self.cells.iter().map(|cell| {
            let found = genotype.cells.iter().find(|c| c.name == cell.name);
            cell.choice(found.ok_or_else(|| invalid(format!("it has no cell `{}`", cell.name)))?)
        });
        let choice = Choice::new(kept.collect::<Result<_>>()?);
        if genotype.cells.len() != self.cells.len() {
            return Err(invalid("it has cells that the space does not have".into()));
        }
        Ok(choice)
    }
}

/// Registers a space of `$types`, a `Vec<CellType>`, whose settings are the size of its supernet.
macro_rules! cell_space {
    (
        $config:ident, $name:literal => $types:expr, $skeleton:expr,
        summary: $summary:expr,
        source: $source:expr,
        defaults: $defaults:expr,
        example: $example:expr
        $(, recipe: $recipe:expr)?
    ) => {
        #[doc = concat!("Settings of `", $name, "`.")]
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $config {
            /// Channels of the first cells; they double twice.
            pub channels: i64,
            /// Number of cells (NAS-Bench-201: in each of three stages).
            pub cells: usize,
        }

        #[typetag::serde(name = $name)]
        impl nasfw_framework::space::SpaceConfig for $config {
            fn build(
                &self,
            ) -> nasfw_framework::Result<Box<dyn nasfw_framework::space::SearchSpace>> {
                let space = $crate::cells::CellSpace::new(
                    $name,
                    $types,
                    $skeleton,
                    self.channels,
                    self.cells,
                )?;
                $(let space = space.with_recipe($recipe);)?
                Ok(Box::new(space))
            }

            fn validate(&self, v: &mut nasfw_framework::config::Validator) {
                v.range("space.channels", self.channels, 2, 1024);
                v.range("space.cells", self.cells, 1, 99);
                if self.channels % 2 != 0 {
                    v.problem("space.channels", "reductions need an even number");
                }
            }
        }

        nasfw_framework::register! {
            space $name => $config,
            summary: $summary,
            source: $source,
            defaults: $defaults,
            example: $example,
            presets: $crate::cells::PRESETS,
        }
    };
}
pub(crate) use cell_space;

/// Presets of all cell spaces.
pub(crate) const PRESETS: &[(&str, &str)] = &[(
    "small",
    "[space]\n# For a first look on a CPU.\nchannels = 4\ncells = 3\n",
)];
