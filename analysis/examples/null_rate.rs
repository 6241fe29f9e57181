//! How often a comparison claims what is not there, and finds what is: the figures in docs/comparing.md.
//!
//! ```text
//! cargo run -p nasfw-analysis --example null_rate
//! ```
#![allow(clippy::print_stdout, missing_docs)]

use nasfw_analysis::compare::{Noise, Simulation};

fn main() {
    let repeats = 10_000;
    println!("level 0.05, {repeats} made-up comparisons each\n");
    println!(
        "noise    strategies seeds ahead  any difference  (without Holm)  first better than both controls"
    );
    for noise in [Noise::Normal, Noise::Skewed, Noise::Rounded] {
        for (strategies, seeds) in [(3, 8), (4, 8), (4, 10), (4, 20), (6, 20)] {
            for ahead in [0.0, 1.0, 2.0] {
                let simulation = Simulation {
                    strategies,
                    seeds,
                    ahead,
                    noise,
                    level: 0.05,
                };
                let r = simulation.rates(repeats, 1);
                println!(
                    "{:<8} {strategies:>10} {seeds:>5} {ahead:>5} {:>15.4} {:>15.4} {:>16.4}",
                    format!("{noise:?}"),
                    r.any,
                    r.any_uncorrected,
                    r.better
                );
            }
        }
    }
}
