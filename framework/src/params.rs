//! Flat parameters: all weights of a network are one vector with a layout, and layers see views of it.
//!
//! What this buys: an optimizer is a handful of operations on one tensor, the gradient norm is one norm, `w ± εv` is
//! one line, a checkpoint is two tensors.

use std::collections::HashSet;

use nasfw_kernels::views::views;
use tch::{Device, Kind, Tensor};

use crate::rng::{self, Streams};

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// All the same.
    Constant(f64),
    /// Gaussian with mean zero.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Uniform in `[-bound, bound]`; PyTorch's default for convolutions and linear layers is `bound = 1/√fan_in`.
    Uniform {
        /// Largest magnitude.
        bound: f64,
    },
}

impl Init {
    /// PyTorch's default initialisation of a convolution or linear layer (weights and bias).
    pub fn fan_in(fan_in: i64) -> Self {
        Self::Uniform {
            bound: 1.0 / (fan_in.max(1) as f64).sqrt(),
        }
    }
}

/// Handle of a parameter in a [`ParamLayout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParamId(usize);

/// A part of a flat vector that lies in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Its first coordinate.
    pub first: i64,
    /// Its shape.
    pub shape: Vec<i64>,
}

impl Stretch {
    /// Its coordinates.
    pub fn range(&self) -> std::ops::Range<i64> {
        self.first..self.first + self.shape.iter().product::<i64>()
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Param {
    name: String,
    shape: Vec<i64>,
    init: Init,
}

/// Names, shapes and initialisers of the parts of a flat vector.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ParamLayout {
    params: Vec<Param>,
}

/// Views of a flat vector, indexed by [`ParamId`].
#[derive(Debug)]
pub struct Views(Vec<Tensor>);

impl std::ops::Index<ParamId> for Views {
    type Output = Tensor;
    fn index(&self, id: ParamId) -> &Tensor {
        &self.0[id.0]
    }
}

impl ParamLayout {
    /// An empty layout.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a parameter. Names must be unique; they are what exports and partial reloads go by.
    pub fn add(&mut self, name: impl Into<String>, shape: &[i64], init: Init) -> ParamId {
        self.params.push(Param {
            name: name.into(),
            shape: shape.to_vec(),
            init,
        });
        ParamId(self.params.len() - 1)
    }

    /// Length of the flat vector.
    pub fn numel(&self) -> i64 {
        self.params
            .iter()
            .map(|p| p.shape.iter().product::<i64>())
            .sum()
    }

    /// Names and shapes in order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[i64])> {
        self.params
            .iter()
            .map(|p| (p.name.as_str(), p.shape.as_slice()))
    }

    /// Views of a flat vector by name, in order.
    pub fn named(&self, flat: &Tensor) -> impl Iterator<Item = (&str, Tensor)> {
        let names = self.params.iter().map(|p| p.name.as_str());
        names.zip(self.views(flat).0)
    }

    /// Name of one parameter.
    pub fn name(&self, id: ParamId) -> &str {
        &self.params[id.0].name
    }

    /// Number of entries of one parameter.
    pub fn numel_of(&self, id: ParamId) -> i64 {
        self.params[id.0].shape.iter().product()
    }

    /// Part `index` of `count` equal parts of a parameter along its first dimension.
    pub fn stretch(&self, id: ParamId, index: i64, count: i64) -> Stretch {
        let numel = |p: &Param| p.shape.iter().product::<i64>();
        let before: i64 = self.params[..id.0].iter().map(numel).sum();
        let mut shape = self.params[id.0].shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows /= count;
        }
        Stretch {
            first: before + index * shape.iter().product::<i64>(),
            shape,
        }
    }

    /// The parameters from number `first` on, each whole.
    pub fn stretches_from(&self, first: usize) -> Vec<Stretch> {
        let all = first..self.params.len();
        all.map(|i| self.stretch(ParamId(i), 0, 1)).collect()
    }

    /// Whether every name occurs once.
    pub fn names_are_unique(&self) -> bool {
        let mut seen = HashSet::new();
        self.params.iter().all(|p| seen.insert(p.name.as_str()))
    }

    /// A fresh flat vector. Every parameter draws from a stream of its own name, so that adding one parameter to a
    /// network leaves the start of all others as it was.
    pub fn init(&self, streams: Streams, kind: Kind, device: Device) -> Tensor {
        let parts: Vec<Tensor> = self
            .params
            .iter()
            .map(|p| {
                let n = [p.shape.iter().product::<i64>()];
                let rng = &mut streams.at(&p.name, 0);
                match p.init {
                    Init::Zeros => Tensor::zeros(n, (kind, Device::Cpu)),
                    Init::Ones => Tensor::ones(n, (kind, Device::Cpu)),
                    Init::Constant(c) => Tensor::full(n, c, (kind, Device::Cpu)),
                    Init::Normal { std } => rng::normal(rng, &n, kind, Device::Cpu) * std,
                    Init::Uniform { bound } => {
                        (rng::uniform(rng, &n, kind, Device::Cpu) * 2.0 - 1.0) * bound
                    }
                }
            })
            .collect();
        if parts.is_empty() {
            return Tensor::zeros([0], (kind, device));
        }
        Tensor::cat(&parts, 0).to_device(device)
    }

    /// Views of a flat vector, whose gradient comes back as one vector.
    ///
    /// # Panics
    /// If the vector is not as long as the layout.
    #[expect(
        clippy::panic,
        reason = "as libtorch's own operators where shapes do not fit"
    )]
    pub fn views(&self, flat: &Tensor) -> Views {
        let shapes: Vec<&[i64]> = self.params.iter().map(|p| p.shape.as_slice()).collect();
        match views(flat, &shapes) {
            Ok(views) => Views(views),
            Err(e) => panic!("{e}"),
        }
    }

    /// A fresh flat vector in which every parameter that `old` also has (same name and shape) keeps its value: what a
    /// staged rebuild carries over.
    pub fn carry(&self, fresh: &Tensor, old: &ParamLayout, old_flat: &Tensor) -> Tensor {
        if self.params.is_empty() {
            return fresh.shallow_clone();
        }
        let (new_views, old_views) = (self.views(fresh), old.views(old_flat));
        let parts: Vec<Tensor> = self
            .params
            .iter()
            .enumerate()
            .map(|(i, p)| {
                old.params
                    .iter()
                    .position(|q| q.name == p.name && q.shape == p.shape)
                    .map_or_else(|| new_views.0[i].view([-1]), |j| old_views.0[j].view([-1]))
            })
            .collect();
        Tensor::cat(&parts, 0)
    }
}
