//! What libtorch lacks for supernets on CPUs, in C++ behind safe functions.

pub mod fused;
pub mod profile;
