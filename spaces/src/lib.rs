//! First-party search spaces of nasfw.

pub mod nasbench101;
pub mod nasbench1shot1;
pub mod ops;
pub mod tables;
pub mod toy;
