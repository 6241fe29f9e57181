//! nasfw
