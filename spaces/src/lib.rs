//! First-party search spaces of nasfw.

pub mod formats;
pub mod nasbench101;
pub mod nasbench1shot1;
pub mod ops;
pub mod published;
pub mod toy;
