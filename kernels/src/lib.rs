//! What libtorch lacks for supernets on CPUs, in C++ behind safe functions.

pub mod memory;
pub mod precision;
pub mod profile;
pub mod surrogate;
