//! First-party search spaces of nasfw.

pub mod cells;
pub mod custom;
pub mod darts;
pub mod formats;
pub mod layers;
pub mod mobile;
pub mod nasbench101;
pub mod nasbench1shot1;
pub mod nasbench201;
pub mod ops;
mod options;
pub mod published;
pub mod robust;
pub mod standalone;
pub mod surrogate;
pub mod tables;
#[cfg(test)]
mod test_data;
pub mod toy;
