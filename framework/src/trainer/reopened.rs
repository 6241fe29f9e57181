//! A run as it was at a checkpoint: what its weights are worth, and the network that they belong to.

use serde::Serialize;

use crate::arch::{Choice, Genotype};
use crate::error::{Error, Result};
use crate::events::Meter;
use crate::network::{Cost, Network, NetworkOptions};
use crate::search::Search;
use crate::supernet::Weights;

/// A run as it was at a checkpoint.
pub struct Reopened {
    pub(super) search: Search,
    pub(super) choice: Choice,
    pub(super) normalisation: Normalisation,
}

/// How pixels become inputs, and what the outputs mean.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Normalisation {
    /// Subtracted from every channel, in units of [0, 1].
    pub mean: Vec<f64>,
    /// Then every channel is divided by this.
    pub std: Vec<f64>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

/// What was measured on the test images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Epochs done at the checkpoint.
    pub epoch: u64,
    /// The architecture.
    pub genotype: Genotype,
    /// Loss and accuracy.
    pub test: Meter,
    /// Size of the network, where the weights are those of a network alone and not a supernet's.
    pub cost: Option<Cost>,
}

impl Reopened {
    /// Epochs done.
    pub fn epoch(&self) -> u64 {
        self.search.epoch()
    }

    /// The architecture.
    pub fn genotype(&self) -> Genotype {
        self.search.space().genotype(&self.choice)
    }

    /// How pixels become inputs, and what the outputs mean.
    pub fn normalisation(&self) -> &Normalisation {
        &self.normalisation
    }

    /// Loss and accuracy on all test images.
    pub fn evaluate(&self) -> Result<Evaluation> {
        let arch = self.search.one_hot(&self.choice);
        Ok(Evaluation {
            epoch: self.epoch(),
            genotype: self.genotype(),
            test: self.search.evaluate(&arch, None, None)?,
            cost: self.network().ok().map(|n| n.cost()),
        })
    }

    /// The network that [`Reopened::weights`] are of.
    ///
    /// # Errors
    /// A run whose weights are those of a weight-sharing supernet.
    pub fn network(&self) -> Result<Network> {
        let genotype = self.genotype();
        let space = self.search.space();
        for auxiliary in [false, true] {
            let options = NetworkOptions {
                auxiliary,
                ..Default::default()
            };
            if let Ok(network) = space.network(&genotype, self.search.task(), &options)
                && network.layout() == self.search.supernet().layout()
            {
                return Ok(network);
            }
        }
        Err(Error::Incompatible {
            what: "the network of this run".into(),
            why: "its weights are those of a supernet, in which architectures share them".into(),
            help: "train the architecture alone with `nasfw retrain RUN`".into(),
        })
    }

    /// Parameters and running statistics.
    pub fn weights(&self) -> Weights<'_> {
        Weights {
            params: &self.search.theta,
            stats: &self.search.stats,
        }
    }
}
