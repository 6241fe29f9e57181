//! The framework of nasfw: what a search is made of, and the one trainer that runs it. It knows no space and no
//! strategy; those announce themselves through the [`registry`].
//!
//! ```text
//! config ─▶ registry ─▶ SearchSpace ─▶ ArchSpec ─▶ Strategy ─▶ ArchDistribution
//!                           │                          │            │ sample
//! dataset ─▶ batches ──────▶ Supernet ◀── RelaxedArch ◀┼────────────┘
//! ```

pub mod arch;
pub mod batches;
pub mod benchmark;
pub mod budget;
pub mod command;
pub mod config;
pub mod conformance;
pub mod dataset;
pub mod device;
pub mod distribution;
pub mod draw;
mod error;
pub mod events;
pub mod input;
pub mod lossless;
pub mod network;
pub mod optim;
pub mod params;
pub mod perf;
pub mod printable;
pub mod registry;
pub mod rng;
pub mod run;
pub mod schedule;
pub mod search;
pub mod space;
pub mod strategy;
pub mod supernet;
pub mod trainer;
pub mod trust;

pub use error::{Error, Result};
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
    pub use crate::dataset::{
        CenterCrop, DataSource, Dataset, ImageData, ImageSource, Images, Part,
    };
    pub use crate::distribution::{ArchDistribution, IndependentSoftmax};
    pub use crate::network::{Network, NetworkBuilder, NetworkOptions};
    pub use crate::optim::OptimizerConfig;
    pub use crate::params::{Init, ParamId, ParamLayout, Views};
    pub use crate::rng::{Rng, Streams};
    pub use crate::search::{Fidelity, LookUp, Metric, Perturbation, Search};
    pub use crate::space::{SearchSpace, SpaceConfig, Task};
    pub use crate::strategy::{
        ArchGradient, BuildContext, Changes, Claims, Control, DataPlan, Endpoints, Objective,
        Picture, Split, Strategy, StrategyConfig, StrategyState, TakenLoss, WeightGradient,
    };
    pub use crate::supernet::{Mode, Supernet, SupernetOptions, Weights};
    pub use crate::{Error, Result};
}
