//! What networks cost: plugins that count or look up, what architectures with weights are expected to cost, and searches under
//! limits.

mod best;
mod contract;
mod limited;
mod limits;
mod model;
pub(crate) mod tables;
mod unit;

pub use contract::{Cost, METRIC};
pub use limited::Limited;
pub use limits::{Asked, Limit, Limits, Wanted};
pub use model::CostModel;
pub use tables::Named;
pub use unit::Unit;
