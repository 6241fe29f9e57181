//! What networks cost.

pub mod latency;
pub mod macs;
pub mod memory;
pub mod params;
