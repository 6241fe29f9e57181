//! Tests of the framework through its public interface, with a space, a dataset and strategies of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod batches;
mod budgets;
mod config;
mod control;
mod export;
mod fixture;
mod hooks;
mod input;
mod micro;
mod network;
mod open;
mod optimizers;
mod params;
mod runs;
mod seams;
mod spec;
