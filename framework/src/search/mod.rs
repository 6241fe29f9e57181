//! The state of a running search, and everything that a strategy's step may ask for.

mod drawing;
mod evaluation;
mod hessian;
mod images;
mod inside;
mod ledger;
mod micro;
mod parked;
mod perturbation;
mod running;
mod tabular;
mod updates;

pub use drawing::Ticket;
pub use hessian::{Curvature, top_eigenvalue};
pub use images::ImageGradients;
pub use parked::Parked;
pub use running::{Autocast, Clock, Perturbation, Search, Settings, Tick};
pub(crate) use running::{Needs, Parts, leaf};
pub use tabular::{Fidelity, Gaps, LookUp, Metric};
