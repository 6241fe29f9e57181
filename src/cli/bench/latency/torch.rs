//! By libtorch, in this process.

use std::collections::BTreeMap;

use nasfw_framework::Result;
use nasfw_framework::device::{choose, describe, libtorch_version};
use nasfw_framework::network::Network;
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::run::Worker;
use nasfw_framework::supernet::Weights;
use tch::{Device, Kind, Tensor};

use super::Measure;
use nasfw_analysis::stats::quantile;

/// Evaluations before those that are timed.
const WARM: usize = 2;
/// Networks that are there at the same time.
const AT_A_TIME: usize = 16;

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

    /// What `time` says of every network, `repeats` times: some networks at a time and in turn, so that what else the machine
    /// does falls on all of them.
    fn timed<T>(
        &self,
        networks: &[Network],
        time: impl Fn(&Ready<'_>) -> Result<T>,
    ) -> Result<Vec<Vec<T>>> {
        let mut all = vec![];
        for networks in networks.chunks(AT_A_TIME) {
            let ready: Vec<Ready<'_>> = networks.iter().map(|n| self.ready(n)).collect();
            let mut times: Vec<Vec<T>> = ready.iter().map(|_| vec![]).collect();
            for turn in 0..WARM + self.repeats {
                for (ready, times) in ready.iter().zip(&mut times) {
                    // The one before has left other values in the caches.
                    time(ready)?;
                    let took = time(ready)?;
                    if turn >= WARM {
                        times.push(took);
                    }
                }
            }
            all.extend(times);
        }
        Ok(all)
    }
}

impl Measure for Torch {
    fn pieces(&mut self, networks: &[Network]) -> Result<BTreeMap<String, Vec<f64>>> {
        let times = self.timed(networks, |r| r.network.time_pieces(r.weights(), &r.images))?;
        let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (network, times) in networks.iter().zip(times) {
            for (i, piece) in network.pieces().iter().enumerate() {
                let here: Vec<f64> = times.iter().map(|t| t[i]).collect();
                let median = quantile(&here, 0.5).unwrap_or_default();
                all.entry(piece.key().to_owned()).or_default().push(median);
            }
        }
        Ok(all)
    }

    fn whole(&mut self, networks: &[Network]) -> Result<Vec<Vec<f64>>> {
        self.timed(networks, |r| r.network.time(r.weights(), &r.images))
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
