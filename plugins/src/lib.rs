//! First-party search strategies of nasfw: one file, or folder, each.

mod bilevel;
pub mod darts;
pub mod darts_dagger;
pub mod gdas;
pub mod random;
pub mod snas;
pub mod train;
pub mod vim;
