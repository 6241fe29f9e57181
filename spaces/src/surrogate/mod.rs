//! Surrogate benchmarks: a table of some architectures and what each is worth, and a model that predicts all others
//! (Zela et al. 2022, ICLR, "Surrogate NAS benchmarks"). `docs/tables.md` tells users of it, `docs/decisions` why it is so.
//!
//! [`Rows`] are read from tables, [`fit()`] makes a model of them and says what it is worth, [`Surrogate`] is both in a file
//! and as a benchmark.

mod benchmark;
mod features;
mod figures;
mod file;
mod fit;
mod key;
mod model;
mod network;
mod rows;
mod target;

#[cfg(test)]
mod tests;

pub use benchmark::{Answer, SurrogateConfig};
pub use figures::Figures;
pub use file::{About, Surrogate, VERSION};
pub use fit::{FEWEST, Fitted, HeldOut, fit};
pub use key::{Key, key};
pub use model::{LEVELS, Prediction};
pub use rows::{Row, Rows};
