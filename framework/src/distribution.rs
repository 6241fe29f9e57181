//! Distributions over whole architectures.

mod dirichlet;
mod gumbel;
mod independent;

pub use dirichlet::Dirichlet;
pub use gumbel::{GumbelSoftmax, Relaxation};
pub use independent::{ArchDistribution, IndependentSoftmax, gumbel, has_none, plackett_luce};
