//! Whether nasfw and PyTorch compute the same from the same weights, images and architecture.

use std::ffi::OsString;

use serde_json::{Value, json};

use super::{Programs, Space};
use crate::failure::Failure;

/// A size and a precision, and how far the numbers may be apart.
struct Case {
    channels: usize,
    pixels: usize,
    batch: usize,
    allowed: &'static Allowed,
}

/// The largest differences, relative.
struct Allowed {
    precision: &'static str,
    loss: f64,
    gradients: f64,
    /// Seeds of which one must keep to it.
    seeds: u64,
}

const DOUBLE: Allowed = Allowed {
    precision: "double",
    loss: 1e-9,
    gradients: 1e-9,
    seeds: 1,
};

/// Rounding may turn the sign of what a ReLU gets, or the order of what a maximum is taken of: then a gradient goes
/// another way. That is rare on small networks.
const FLOAT: Allowed = Allowed {
    precision: "float",
    loss: 1e-5,
    gradients: 1e-4,
    seeds: 3,
};

/// On large ones it happens every time, in PyTorch as well.
const FLOAT_LARGE: Allowed = Allowed {
    gradients: 5e-2,
    ..FLOAT
};

const CASES: [Case; 5] = [
    case(4, 16, 4, &DOUBLE),
    case(4, 16, 4, &FLOAT),
    // The searches' own width, and then their own images.
    case(16, 16, 2, &FLOAT),
    case(16, 32, 8, &DOUBLE),
    case(16, 32, 8, &FLOAT_LARGE),
];

const fn case(channels: usize, pixels: usize, batch: usize, allowed: &'static Allowed) -> Case {
    Case {
        channels,
        pixels,
        batch,
        allowed,
    }
}

/// Compares all cases on all spaces and prints a line each.
///
/// # Errors
/// The first that differs by more than is allowed.
pub fn check(programs: &Programs<'_>, spaces: &[&Space]) -> Result<Value, Failure> {
    println!("relative differences from PyTorch in double precision, and those of PyTorch itself");
    println!(
        "{:18}{:>9}{:>7}{:>7}{:>7}{:>8}{:>9}{:>9}{:>9}{:>9}",
        "", "channels", "cells", "pixels", "batch", "", "loss", "gradient", "allowed", "PyTorch"
    );
    let mut found = vec![];
    for space in spaces {
        for case in &CASES {
            let (seed, differences) = first_equal(programs, space, case)?;
            let (loss, gradients) = worst(&differences, case.allowed)?;
            let rounding = differences["rounding"]["gradients"].as_f64();
            println!(
                "{:18}{:>9}{:>7}{:>7}{:>7}{:>8}{loss:>9.0e}{gradients:>9.0e}{:>9.0e}{:>9.0e}",
                space.name,
                case.channels,
                space.few_cells,
                case.pixels,
                case.batch,
                case.allowed.precision,
                case.allowed.gradients,
                rounding.unwrap_or(f64::NAN)
            );
            found.push(json!({
                "space": space.name, "channels": case.channels, "cells": space.few_cells,
                "pixels": case.pixels, "batch": case.batch, "seed": seed,
                "precision": case.allowed.precision, "allowed": case.allowed.gradients,
                "differences": differences,
            }));
        }
    }
    println!();
    Ok(Value::Array(found))
}

/// The first seed that keeps to what is allowed, with its differences.
///
/// # Errors
/// Why the last seed does not, if none does.
fn first_equal(
    programs: &Programs<'_>,
    space: &Space,
    case: &Case,
) -> Result<(u64, Value), Failure> {
    let (channels, cells) = (case.channels.to_string(), space.few_cells.to_string());
    let mut seed = 0;
    loop {
        let sizes = [case.pixels, case.batch].map(|n| n.to_string());
        let mut export = vec![space.name.to_owned(), channels.clone(), cells.clone()];
        export.extend(sizes);
        export.extend([case.allowed.precision.to_owned(), seed.to_string()]);
        let file = programs.export(&export)?.into_os_string();
        let network = [space.name, &channels, &cells].map(OsString::from);
        let args = [OsString::from("compare"), file].into_iter().chain(network);
        let differences = programs.python(args)?;
        seed += 1;
        match worst(&differences, case.allowed) {
            Ok(_) => return Ok((seed - 1, differences)),
            Err(failure) if seed == case.allowed.seeds => {
                let message = format!(
                    "{} with {channels} channels: {}",
                    space.name, failure.message
                );
                return Err(Failure { message, ..failure });
            }
            Err(_) => {}
        }
    }
}

/// The largest differences of loss and gradients, over a weight step and a pass with the architecture's gradients.
///
/// # Errors
/// A difference over what is allowed, and operator calls that the two programs count differently.
fn worst(differences: &Value, allowed: &Allowed) -> Result<(f64, f64), Failure> {
    let help = "see benches/peer/README.md for how equality is judged";
    let mut worst = (0.0_f64, 0.0_f64);
    for run in ["step", "both"] {
        let number = |key: &str| differences[run][key].as_f64().unwrap_or(f64::INFINITY);
        let (loss, gradients) = (number("loss"), number("gradients"));
        // Not a number is over every tolerance.
        if !(loss <= allowed.loss && gradients <= allowed.gradients) {
            return Err(Failure::new(
                format!(
                    "the loss differs from PyTorch's by {loss:.1e} and the gradient of {} by {gradients:.1e}; \
                     {:.0e} and {:.0e} are allowed in {} precision",
                    differences[run]["worst"], allowed.loss, allowed.gradients, allowed.precision
                ),
                help,
            ));
        }
        worst = (worst.0.max(loss), worst.1.max(gradients));
    }
    let counts = &differences["operators"];
    if counts["reference"] != counts["nasfw"] {
        return Err(Failure::new(
            format!(
                "the two programs count the operator calls of one example differently: {counts}"
            ),
            help,
        ));
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn differences(loss: f64, gradients: f64) -> Value {
        json!({
            "step": {"loss": 1e-12, "gradients": 3e-12, "worst": "stem.0.weight"},
            "both": {"loss": loss, "gradients": gradients, "worst": "architecture.1"},
            "operators": {"reference": {"all": 9, "leaves": 5}, "nasfw": {"all": 9, "leaves": 5}},
        })
    }

    #[test]
    fn differences_within_the_tolerance_pass() {
        let both = worst(&differences(1e-10, 1e-12), &DOUBLE).unwrap();
        assert_eq!(both, (1e-10, 3e-12));
    }

    #[test]
    fn differences_over_it_fail_whatever_they_are_in() {
        for (loss, gradients) in [(1e-8, 0.0), (0.0, 1e-8), (f64::NAN, 0.0), (0.0, f64::NAN)] {
            let failure = worst(&differences(loss, gradients), &DOUBLE).unwrap_err();
            assert!(failure.message.contains("architecture.1"), "{failure}");
            assert_eq!(failure.code, 1);
        }
        let mut lacking = differences(0.0, 0.0);
        lacking["both"] = Value::Null;
        worst(&lacking, &DOUBLE).unwrap_err();
    }

    #[test]
    fn single_precision_may_differ_more_but_not_in_the_loss() {
        worst(&differences(5e-6, 5e-5), &DOUBLE).unwrap_err();
        worst(&differences(5e-6, 5e-5), &FLOAT).unwrap();
        worst(&differences(5e-6, 5e-3), &FLOAT).unwrap_err();
        worst(&differences(5e-6, 5e-3), &FLOAT_LARGE).unwrap();
        worst(&differences(5e-5, 5e-3), &FLOAT_LARGE).unwrap_err();
    }

    #[test]
    fn operator_calls_must_be_counted_alike() {
        let mut other = differences(0.0, 0.0);
        other["operators"]["nasfw"]["leaves"] = 6.into();
        let failure = worst(&other, &DOUBLE).unwrap_err();
        assert!(failure.message.contains("operator calls"), "{failure}");
    }
}
