//! First-party search spaces of nasfw.

pub mod nasbench101;
