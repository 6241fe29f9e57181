//! What networks cost.

pub mod macs;
pub mod memory;
pub mod params;
