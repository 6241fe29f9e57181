//! First-party search strategies of nasfw: one file, or folder, each.

mod bilevel;
pub mod darts;
pub mod darts_ada;
pub mod darts_es;
pub mod darts_plus;
mod eigenvalue;
pub mod random;
pub mod regularized_evolution;
pub mod rsps;
pub mod sdarts;
pub mod sgas;
pub mod train;
pub mod vim;
