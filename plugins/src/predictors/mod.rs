//! What strategies share that learn to predict how good architectures are: architectures as graphs, networks on them, and
//! trainings that a table stands in for or that go on where they were set aside.

pub mod dngo;
pub mod gin;
pub mod graph;
pub(crate) mod trials;
pub mod vae;
