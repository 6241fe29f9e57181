//! The framework of nasfw: what a search is made of, and the one trainer that runs it. It knows no space and no
//! strategy; those announce themselves through the [`registry`].
//!
//! ```text
//! config ─▶ registry ─▶ SearchSpace ─▶ ArchSpec ─▶ Strategy ─▶ ArchDistribution
//!                           │                          │            │ sample
//! dataset ─▶ batches ──────▶ Supernet ◀── RelaxedArch ◀┼────────────┘
//! ```

// The floors of the house, from the ground up. A module takes from those below it, never from above or beside it;
// `xtask/tests/floors.rs` keeps that.

// Ground: plain helpers.
pub mod input;
pub mod lossless;
pub mod palette;
pub mod printable;
pub mod rng;
pub mod schedule;
pub mod sealed;

// What is said to people: settings with their faults, commands, names of files.
pub mod command;
pub mod files;
pub mod settings;

mod error;

// The words of the field.
pub mod arch;
pub mod budget;
pub mod device;
pub mod engine;
pub mod gradients;
pub mod observe;
pub mod optim;
pub mod params;
pub mod ranks;
mod tensors;

pub mod benchmark;
pub mod dataset;
pub mod distribution;
pub mod front;
pub mod supernet;

pub mod inputs;
pub mod trust;

pub mod network;

// What plugins are, and what happens.
pub mod batches;
pub mod events;
pub mod outcome;
pub mod space;

pub mod cost;
pub mod draw;
pub mod listen;
pub mod proxy;

// A search at work, and how it is guided.
pub mod run;
pub mod search;
pub mod tracker;

pub mod strategy;

// A run: what it is made of, from names to plugins to settings.
pub mod job;

pub mod registry;

pub mod config;

// What carries it out, and what times it.
pub mod trainer;

pub mod perf;

pub use error::{Error, Result, if_any};
#[doc(hidden)]
pub use inventory;

/// What a plugin needs.
pub mod prelude {
    pub use crate::arch::{
        ArchSpec, Cell, Choice, Edge, Edges, Genotype, Group, Marginals, Node, RelaxedArch, Role,
        Row,
    };
    pub use crate::batches::Batch;
    pub use crate::benchmark::{Benchmark, BenchmarkConfig, Provenance, Score, Standing};
    pub use crate::config::Validator;
    pub use crate::cost::{Cost, Unit};
    pub use crate::dataset::{
        CenterCrop, DataSource, Dataset, ImageData, ImageSource, Images, Part,
    };
    pub use crate::distribution::{ArchDistribution, IndependentSoftmax};
    pub use crate::events::Event;
    pub use crate::front::{Archive, Criterion};
    pub use crate::listen::{Listener, SharedListener};
    pub use crate::network::{Network, NetworkBuilder, NetworkOptions};
    pub use crate::observe::{Place, Value, Wanted};
    pub use crate::optim::OptimizerConfig;
    pub use crate::outcome::Outcome;
    pub use crate::params::{Init, ParamId, ParamLayout, Stretch, Views};
    pub use crate::proxy::{Proxy, Start};
    pub use crate::rng::{Rng, Streams};
    pub use crate::search::{
        Fidelity, Gaps, ImageGradients, LookUp, Metric, Parked, Perturbation, Search, Ticket,
    };
    pub use crate::space::{SearchSpace, SpaceConfig, Task};
    pub use crate::strategy::{
        ArchGradient, BuildContext, Changes, Claims, Control, DataPlan, Endpoints, Objective,
        Picture, Split, Strategy, StrategyConfig, StrategyState, TakenLoss, WeightGradient,
    };
    pub use crate::supernet::{Mode, OwnWeights, Supernet, SupernetOptions, Weights};
    pub use crate::tracker::{Tracked, Tracker};
    pub use crate::{Error, Result};
}
