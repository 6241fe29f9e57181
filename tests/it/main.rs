//! Tests of the whole: real processes, every registered plugin, what the documentation says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use nasfw as _;

mod bad_input;
mod bench;
mod compare;
mod completions;
mod custom;
mod docs;
mod doctor;
mod evaluate;
mod export;
mod folders;
mod fronts;
mod genotype;
mod hosts;
mod interrupts;
mod kills;
mod latency;
mod limits;
mod messages;
mod mlflow;
mod perf;
mod pictures;
mod predict;
mod program;
mod pytorch;
mod ranks;
mod registry;
mod report;
mod resume;
mod retrain;
mod runs;
mod samplers;
mod score;
mod second_order;
mod spaces;
mod start;
mod strategies;
mod surrogate;
mod synchronisation;
mod tables;
mod talk;
mod tensorboard;
mod trackers;
mod trial;
mod watch;
mod wrappers;
