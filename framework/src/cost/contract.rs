//! The trait of costs.

use super::unit::Unit;
use crate::error::Result;
use crate::network::Network;
use crate::settings::Validator;

/// What the name of a metric begins with that is what a network costs: `cost/macs`.
pub const METRIC: &str = "cost/";

/// A number that a network costs: less is better. It is a function of the settings and of the network alone.
///
/// Settings are its own fields, kept by name.
#[typetag::serde(tag = "name")]
pub trait Cost: Send + Sync + std::fmt::Debug {
    /// What it is counted in, whatever its settings are.
    fn unit(&self) -> Unit;

    /// What a network costs, in the unit's own base (one, a byte, a second).
    ///
    /// # Errors
    /// Networks with parts that the cost does not know, a table that can't be read.
    fn of(&self, network: &Network) -> Result<f64>;

    /// What tells two tables apart that it reads, for example a BLAKE3; none of what is counted. A run does not go on with another.
    ///
    /// # Errors
    /// A table that can't be read.
    fn checksum(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// What a reader must know of its numbers where they are no counts, as a sentence without a full stop: that a table predicts
    /// them, and how far it is off. They are shown as predicted then.
    ///
    /// # Errors
    /// A table that can't be read.
    fn doubt(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Checks ranges before anything is counted; keys begin with `cost.`.
    fn validate(&self, _v: &mut Validator) {}
}
