//! By libtorch, in this process.

use std::collections::BTreeMap;

use nasfw_analysis::stats::quantile;
use nasfw_framework::Result;
use nasfw_framework::device::{choose, describe, libtorch_version};
use nasfw_framework::network::Network;
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::run::Worker;
use nasfw_framework::supernet::Weights;
use tch::{Device, Kind, Tensor};

use super::{Measure, Measured};

/// Evaluations before those that are timed.
const WARM: usize = 2;

/// Evaluates networks and looks at the clock.
pub struct Torch {
    device: Device,
    batch: i64,
    repeats: usize,
}

/// A network with random weights, and random images.
struct Ready<'a> {
    network: &'a Network,
    params: Tensor,
    stats: Tensor,
    images: Tensor,
}

impl Ready<'_> {
    fn weights(&self) -> Weights<'_> {
        Weights {
            params: &self.params,
            stats: &self.stats,
        }
    }
}

impl Torch {
    /// On a device ([`choose`]) with so many CPU threads, 0 for one per core.
    pub fn new(device: &str, threads: usize, batch: i64, repeats: usize) -> Result<Self> {
        let device = choose(device)?;
        if let Ok(threads @ 1..) = i32::try_from(threads) {
            tch::set_num_threads(threads);
        }
        Ok(Self {
            device,
            batch,
            repeats,
        })
    }

    fn ready<'a>(&self, network: &'a Network) -> Ready<'a> {
        let streams = Streams::new(0);
        let task = network.task();
        let shape = [self.batch, task.channels, task.height, task.width];
        let images = rng::normal(
            &mut streams.at("images", 0),
            &shape,
            Kind::Float,
            Device::Cpu,
        );
        Ready {
            network,
            params: network.layout().init(streams, Kind::Float, self.device),
            stats: network
                .stats_layout()
                .init(streams, Kind::Float, self.device),
            images: images.to_device(self.device),
        }
    }
}

impl Measure for Torch {
    fn measure(&mut self, covering: &[Network], others: &[Network]) -> Result<Measured> {
        let all: Vec<Ready<'_>> = covering
            .iter()
            .chain(others)
            .map(|n| self.ready(n))
            .collect();
        let mut whole = vec![vec![]; all.len()];
        let mut pieces = vec![vec![]; covering.len()];
        for turn in 0..WARM + self.repeats {
            for (i, ready) in all.iter().enumerate() {
                let time = || ready.network.time(ready.weights(), &ready.images);
                // The network before has left other values in the caches.
                time()?;
                let took = time()?;
                let parts = (i < covering.len())
                    .then(|| ready.network.time_pieces(ready.weights(), &ready.images))
                    .transpose()?;
                if turn >= WARM {
                    whole[i].push(took);
                    parts.into_iter().for_each(|parts| pieces[i].push(parts));
                }
            }
        }
        let others = whole.split_off(covering.len());
        Ok(Measured {
            pieces: by_key(covering, &pieces),
            covering: whole,
            others,
        })
    }

    fn describe(&self) -> String {
        format!(
            "libtorch {} on {} ({})",
            libtorch_version(),
            describe(self.device),
            Worker::this().processor
        )
    }
}

/// Seconds of pieces by their keys, for each place in a network the median of what it took there in every turn.
fn by_key(networks: &[Network], turns: &[Vec<Vec<f64>>]) -> BTreeMap<String, Vec<f64>> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (network, turns) in networks.iter().zip(turns) {
        for (i, piece) in network.pieces().iter().enumerate() {
            let here: Vec<f64> = turns.iter().map(|turn| turn[i]).collect();
            let median = quantile(&here, 0.5).unwrap_or_default();
            all.entry(piece.key().to_owned()).or_default().push(median);
        }
    }
    all
}
