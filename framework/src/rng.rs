//! Counted randomness: every draw comes from a seed derived from (run seed, stream name, counter), never from stored
//! generator state. A resumed run therefore draws what an uninterrupted one would have drawn, on any device, because
//! the numbers are made on the host.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, StandardUniform};
use tch::{Device, Kind, Tensor};

/// The generator of one draw.
pub type Rng = ChaCha8Rng;

/// All streams of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
}

impl Streams {
    /// The streams of a run seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The generator of draw number `counter` of the stream called `name`.
    pub fn at(&self, name: &str, counter: u64) -> Rng {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"nasfw stream 1");
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&counter.to_le_bytes());
        hasher.update(name.as_bytes());
        ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
    }

    /// Streams of their own for a part of the run, for example one candidate of a random search.
    pub fn child(&self, name: &str, counter: u64) -> Self {
        use rand::Rng as _;
        Self {
            seed: self.at(name, counter).next_u64(),
        }
    }
}

/// Standard normal numbers of the given shape.
pub fn normal(rng: &mut Rng, shape: &[i64], kind: Kind, device: Device) -> Tensor {
    draw(rng, shape, kind, device, |r| StandardNormal.sample(r))
}

/// Numbers uniform in [0, 1) of the given shape.
pub fn uniform(rng: &mut Rng, shape: &[i64], kind: Kind, device: Device) -> Tensor {
    draw(rng, shape, kind, device, |r| StandardUniform.sample(r))
}

fn draw(
    rng: &mut Rng,
    shape: &[i64],
    kind: Kind,
    device: Device,
    one: impl Fn(&mut Rng) -> f64,
) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let numbers: Vec<f64> = (0..count).map(|_| one(rng)).collect();
    Tensor::from_slice(&numbers)
        .view(shape)
        .to_kind(kind)
        .to_device(device)
}
