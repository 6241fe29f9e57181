//! First-party search strategies of nasfw: one file, or folder, each.

mod bilevel;
pub mod darts;
pub mod darts_ada;
pub mod darts_dagger;
pub mod darts_es;
pub mod darts_minus;
pub mod darts_plus;
pub mod drnas;
mod eigenvalue;
pub mod fair_darts;
pub mod gdas;
pub mod p_darts;
pub mod pc_darts;
pub mod r_darts;
pub mod random;
pub mod regularized_evolution;
pub mod rsps;
pub mod sdarts;
pub mod sgas;
pub mod snas;
pub mod train;
pub mod vim;
