//! Tables of published results, in a compact format of nasfw's own, and the benchmarks that look them up.
//!
//! Published tables are gigabytes of pickles and records that take minutes to load. `nasfw bench import` turns them,
//! once, into a [`Table`]: sorted rows of fixed width that a query reads a handful of. `docs/tables.md` has the format.

mod family;
mod format;
mod lookup;
mod official;
mod pickle;
pub(crate) mod source;
mod tfrecord;

pub mod nasbench101;
pub mod nasbench201;

#[cfg(test)]
mod tests;

use nasfw_framework::{Error, Result};

pub use family::Family;
pub use format::{Builder, Column, Header, Kind, Measure, Metric, Row, Table};
pub use lookup::TableConfig;

/// All of them.
pub const FAMILIES: [&Family; 2] = [&nasbench101::FAMILY, &nasbench201::FAMILY];

impl Family {
    /// The family of this name.
    ///
    /// # Errors
    /// When there is none, with the names that there are.
    pub fn named(name: &str) -> Result<&'static Self> {
        FAMILIES
            .into_iter()
            .find(|f| f.name == name)
            .ok_or_else(|| Error::UnknownPlugin {
                kind: "benchmark",
                name: name.into(),
                similar: nasfw_framework::registry::similar(name, FAMILIES.iter().map(|f| f.name)),
                known: FAMILIES.iter().map(|f| f.name.to_owned()).collect(),
            })
    }
}
