//! What libtorch lacks for supernets, in C++ behind safe functions.

pub mod fused;
mod message;
pub mod profile;
pub mod views;
