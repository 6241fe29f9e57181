//! What libtorch lacks for supernets, in C++ behind safe functions.

pub mod fused;
pub mod memory;
mod message;
pub mod precision;
pub mod profile;
pub mod surrogate;
pub mod views;
