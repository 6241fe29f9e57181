//! What libtorch lacks for supernets, in C++ behind safe functions.

pub mod fused;
pub mod group;
pub mod handle;
pub mod memory;
mod message;
pub mod precision;
pub mod profile;
pub mod surrogate;
pub mod views;

use std::ffi::{CStr, c_char};

unsafe extern "C" {
    fn nasfw_libtorch_version() -> *const c_char;
}

/// Version of the libtorch that the program was built with, such as `2.13.0`.
pub fn libtorch_version() -> &'static str {
    // SAFETY: a constant of the C++ part.
    let version = unsafe { CStr::from_ptr(nasfw_libtorch_version()) };
    version.to_str().unwrap_or("unknown")
}
