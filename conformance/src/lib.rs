//! The conformance suite: one call checks a plugin, first-party or a stranger's, against what every plugin of its kind
//! must hold. It knows no space and no strategy.
//!
//! ```no_run
//! use nasfw_conformance as conformance;
//! use nasfw_framework::registry::{Kind, Registry};
//!
//! # fn main() -> nasfw_framework::Result<()> {
//! let registry = Registry::load()?;
//! let report = conformance::strategy(registry.get(Kind::Strategy, "mine")?);
//! report.ok()?; // an error that says which invariant broke, and how
//! # Ok(())
//! # }
//! ```

mod cost;
mod dataset;
mod distribution;
mod plugin;
mod probe;
mod proxy;
mod report;
mod rig;
mod settings;
mod slopes;
mod space;
mod space_options;
mod strategy;
mod supernet;
mod trace;
mod tracker;

pub use cost::{cost, networks_of_costs};
pub use dataset::dataset;
pub use distribution::distribution;
pub use plugin::plugin;
pub use probe::Problem;
pub use proxy::proxy;
pub use report::{Finding, Report, Verdict};
pub use space::space;
pub use space_options::space_options;
pub use strategy::{ArchStep, architecture_step, strategy, strategy_invariant, strategy_on};
pub use supernet::supernet;
pub use tracker::tracker;
