//! First-party search strategies of nasfw: one file, or folder, each.

mod bilevel;
pub mod darts;
pub mod random;
pub mod regularized_evolution;
pub mod rsps;
pub mod sgas;
pub mod train;
pub mod vim;
