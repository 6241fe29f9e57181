//! A run as it was at a checkpoint: what its weights are worth, and the network that they belong to.

use tch::{Device, Kind, Tensor};

use super::evaluation::{Counts, Evaluation};
use crate::arch::{Choice, Genotype};
use crate::benchmark::Score;
use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::network::{self, Network, NetworkOptions};
use crate::rng::Streams;
use crate::search::Search;
use crate::space::different;
use crate::strategy::Split;
use crate::supernet::Weights;

/// A run as it was at a checkpoint.
pub struct Reopened {
    pub(crate) search: Search,
    pub(crate) choice: Choice,
    pub(crate) inputs: Inputs,
}

/// An architecture with what the supernet and the benchmark say of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// The architecture.
    pub genotype: Genotype,
    /// Its accuracy in the supernet on the validation half, from 0 to 1.
    pub accuracy: f64,
    /// What the benchmark says of it.
    pub score: Score,
}

impl Reopened {
    /// Draws `count` different architectures uniformly (fewer where the space has fewer) and measures each in the
    /// trained supernet, on the first `batches` batches of the validation half or on all of it.
    ///
    /// # Errors
    /// Runs without a benchmark, without a trained weight-sharing supernet, and benchmarks that lack one of the
    /// architectures.
    pub fn rank(&self, count: usize, batches: Option<usize>, seed: u64) -> Result<Vec<Drawn>> {
        let refused = |why: String, help: &str| Error::Incompatible {
            what: "the ranking of this run's supernet".into(),
            why,
            help: help.into(),
        };
        let search = &self.search;
        if search.benchmark().is_none() {
            return Err(refused(
                "it has no benchmark, so there is nothing to compare with".into(),
                "import a table with `nasfw bench import`, or search a space that `nasfw bench list` names",
            ));
        }
        if search.phi.numel() == 0 {
            return Err(refused(
                "its strategy learns no distribution, so no supernet was trained for all architectures".into(),
                "rank a run of a strategy with a distribution, for example vim or darts",
            ));
        }
        if search.clock.step == 0 {
            return Err(refused(
                "its supernet is not trained yet".into(),
                "go on with `nasfw resume RUN`",
            ));
        }
        let mut rng = Streams::new(seed).at("ranking", 0);
        let drawn = different(search.space(), count, &mut rng);
        let known: Vec<_> = drawn
            .into_iter()
            .map(|(choice, genotype)| Ok((search.query(&genotype)?, choice, genotype)))
            .collect::<Result<_>>()?;
        let lacking = known.iter().filter(|(score, ..)| score.is_none()).count();
        if lacking > 0 {
            return Err(refused(
                format!(
                    "the table lacks {lacking} of {} architectures drawn",
                    known.len()
                ),
                "a ranking needs a table of the whole space; `nasfw bench info NAME` says what a table holds",
            ));
        }
        known
            .into_iter()
            .map(|(score, choice, genotype)| {
                let arch = search.one_hot(&choice);
                Ok(Drawn {
                    accuracy: search.evaluate(&arch, Some(Split::Val), batches)?.accuracy,
                    score: score.unwrap_or_default(),
                    genotype,
                })
            })
            .collect()
    }

    /// Epochs done.
    pub fn epoch(&self) -> u64 {
        self.search.epoch()
    }

    /// The architecture.
    pub fn genotype(&self) -> Genotype {
        self.search.space().genotype(&self.choice)
    }

    /// What the network takes, and what its outputs mean.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Loss and accuracy on all test images, and what becomes of every class.
    pub fn evaluate(&self) -> Result<Evaluation> {
        let arch = self.search.one_hot(&self.choice);
        let mut counts = Counts::default();
        let test = self
            .search
            .evaluate_seeing(&arch, (None, None), |output, batch| {
                if self.search.are_logits(output, batch.len()) {
                    let taken_for = numbers(&output.argmax(-1, false))?;
                    counts.add(&numbers(&batch.labels)?, &taken_for);
                }
                Ok(())
            })?;
        let classes = counts.classes(&self.inputs);
        Ok(Evaluation {
            epoch: self.epoch(),
            genotype: self.genotype(),
            test,
            cost: self.network().ok().map(|n| n.size()),
            confusion: counts.matrix(classes.len()),
            mistakes: counts.mistakes(),
            classes,
        })
    }

    /// Probabilities of the classes for images, a row an image, in the order of [`Inputs`]' classes. Images are bytes, one
    /// after the other, each channel × row × column, as [`Inputs::cut`] cuts them out of pictures; `number` counts the
    /// batches that one asks about, for networks that draw noise.
    ///
    /// # Errors
    /// A run whose weights are those of a weight-sharing supernet, bytes that are no whole number of images, a space whose
    /// outputs are no classes, and outputs that are not finite.
    pub fn probabilities(&self, images: &[u8], number: u64) -> Result<Vec<Vec<f64>>> {
        self.need_one()?;
        let arch = self.search.one_hot(&self.choice);
        let found = self.search.probabilities(&arch, images, number)?;
        let (size, all) = (found.size(), found.flatten(0, -1));
        let all = Vec::<f64>::try_from(&all)?;
        if all.iter().any(|p| !p.is_finite()) {
            return Err(Error::NotFinite {
                what: "the output of the network".into(),
                step: self.search.clock().step,
                run: None,
            });
        }
        let rows = all.chunks(size[1].max(1) as usize);
        Ok(rows.map(<[f64]>::to_vec).collect())
    }

    /// The network that [`Reopened::weights`] are of.
    ///
    /// # Errors
    /// A run whose weights are those of a weight-sharing supernet; a network that is no list of operations.
    pub fn network(&self) -> Result<Network> {
        self.need_one()?;
        let genotype = self.genotype();
        let build = |auxiliary| {
            let options = NetworkOptions {
                auxiliary,
                ..Default::default()
            };
            let space = self.search.space();
            space.network(&genotype, self.search.task(), &options)
        };
        for auxiliary in [false, true] {
            let network = build(auxiliary)?;
            if network.layout() == self.search.supernet().layout() {
                return Ok(network);
            }
        }
        Err(shared())
    }

    /// Whether the weights are those of one architecture alone.
    pub fn is_alone(&self) -> bool {
        self.search.space().spec().size() <= 1.0
    }

    fn need_one(&self) -> Result<()> {
        match self.is_alone() {
            true => Ok(()),
            false => Err(shared()),
        }
    }

    /// The weights as a safetensors file, by their names, with `metadata` under the key `nasfw`.
    ///
    /// # Errors
    /// A run whose weights are those of a weight-sharing supernet.
    pub fn safetensors(&self, metadata: &str) -> Result<Vec<u8>> {
        self.need_one()?;
        let supernet = self.search.supernet();
        let layouts = (supernet.layout(), &supernet.stats_layout());
        network::safetensors(layouts, self.weights(), metadata)
    }

    /// Parameters and running statistics.
    pub fn weights(&self) -> Weights<'_> {
        Weights {
            params: &self.search.theta,
            stats: &self.search.stats,
        }
    }
}

/// Whole numbers on the host.
fn numbers(tensor: &Tensor) -> Result<Vec<i64>> {
    let tensor = tensor.to_kind(Kind::Int64).to_device(Device::Cpu);
    Ok(Vec::try_from(tensor)?)
}

fn shared() -> Error {
    Error::Incompatible {
        what: "the network of this run".into(),
        why: "its weights are those of a supernet, in which architectures share them".into(),
        help: "train the architecture alone with `nasfw retrain RUN`".into(),
    }
}
