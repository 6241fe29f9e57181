//! Several aims at once: which architectures are beaten by no other in all of them, and how much they cover.

mod archive;
mod found;
mod order;
mod volume;

pub use archive::Archive;
pub use found::{Criterion, Front, HYPERVOLUME, Member};
pub use order::{crowding, dominates, non_dominated, ranks};
pub use volume::hypervolume;
