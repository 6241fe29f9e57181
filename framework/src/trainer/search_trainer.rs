//! The trainer.
use crate::prelude::*;
/// found
pub struct Outcome;
/// trainer
#[derive(Debug)]
pub struct SearchTrainer;
