//! Whether nasfw and PyTorch compute the same from the same weights, images and architecture.

use serde_json::{Value, json};

use super::{Programs, Space};
use crate::failure::Failure;

/// A size and a precision, and how far the numbers may be apart.
struct Case {
    channels: usize,
    pixels: usize,
    batch: usize,
    precision: &'static str,
    tolerance: f64,
}

const DOUBLE: f64 = 1e-9;
const FLOAT: f64 = 1e-4;

const CASES: [Case; 3] = [
    case(4, 16, 4, "double", DOUBLE),
    case(4, 16, 4, "float", FLOAT),
    // The searches' own width.
    case(16, 32, 8, "float", FLOAT),
];

const fn case(
    channels: usize,
    pixels: usize,
    batch: usize,
    precision: &'static str,
    tolerance: f64,
) -> Case {
    Case {
        channels,
        pixels,
        batch,
        precision,
        tolerance,
    }
}

/// Compares all cases on all spaces and prints a line each.
///
/// # Errors
/// The first that differs by more than its tolerance.
pub fn check(programs: &Programs<'_>, spaces: &[&Space]) -> Result<Value, Failure> {
    println!("differences from PyTorch in double precision, relative");
    println!(
        "{:36}{:>8}{:>10}{:>10}{:>10}{:>10}",
        "", "", "loss", "gradient", "rounding", "allowed"
    );
    let mut found = vec![];
    for space in spaces {
        for case in &CASES {
            let size = [case.channels, space.few_cells].map(|n| n.to_string());
            let mut export = vec![space.name.to_owned()];
            export.extend(size.clone());
            export.extend([case.pixels, case.batch].map(|n| n.to_string()));
            export.push(case.precision.into());
            let file = programs.export(&export)?.into_os_string();
            let mut args = vec!["compare".into(), file, space.name.into()];
            args.extend(size.map(Into::into));
            let differences = programs.python(args)?;
            let [channels, cells] = [case.channels, space.few_cells];
            let name = format!("{} {channels} channels {cells} cells", space.name);
            let (loss, gradients) = worst(&differences, case.tolerance, &name)?;
            let rounding = differences["rounding"]["gradients"].as_f64().unwrap_or(0.0);
            println!(
                "{name:36}{:>8}{loss:>10.1e}{gradients:>10.1e}{rounding:>10.1e}{:>10.0e}",
                case.precision, case.tolerance
            );
            found.push(json!({
                "space": space.name, "channels": channels, "cells": cells,
                "pixels": case.pixels, "batch": case.batch, "precision": case.precision,
                "allowed": case.tolerance, "differences": differences,
            }));
        }
    }
    println!();
    Ok(Value::Array(found))
}

/// The largest differences of loss and gradients, over a weight step and a pass with the architecture's gradients.
///
/// # Errors
/// A difference over `tolerance`, and operator calls that the two programs count differently.
fn worst(differences: &Value, tolerance: f64, name: &str) -> Result<(f64, f64), Failure> {
    let help = "see benches/peer/README.md for how equality is judged";
    let mut worst = (0.0_f64, 0.0_f64);
    for run in ["step", "both"] {
        let number = |key: &str| differences[run][key].as_f64().unwrap_or(f64::INFINITY);
        let (loss, gradients) = (number("loss"), number("gradients"));
        // Not a number is over every tolerance.
        if !(loss <= tolerance && gradients <= tolerance) {
            return Err(Failure::new(
                format!(
                    "{name}: the loss differs by {loss:.1e} and the gradient of {} by {gradients:.1e}, \
                     more than {tolerance:.0e}",
                    differences[run]["worst"]
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
        let both = worst(&differences(1e-10, 1e-12), 1e-9, "it").unwrap();
        assert_eq!(both, (1e-10, 3e-12));
    }

    #[test]
    fn differences_over_it_fail_whatever_they_are_in() {
        for (loss, gradients) in [(1e-8, 0.0), (0.0, 1e-8), (f64::NAN, 0.0), (0.0, f64::NAN)] {
            let failure = worst(&differences(loss, gradients), 1e-9, "it").unwrap_err();
            assert!(failure.message.contains("architecture.1"), "{failure}");
            assert_eq!(failure.code, 1);
        }
        let mut lacking = differences(0.0, 0.0);
        lacking["both"] = Value::Null;
        worst(&lacking, 1e-9, "it").unwrap_err();
    }

    #[test]
    fn operator_calls_must_be_counted_alike() {
        let mut other = differences(0.0, 0.0);
        other["operators"]["nasfw"]["leaves"] = 6.into();
        let failure = worst(&other, 1e-9, "it").unwrap_err();
        assert!(failure.message.contains("operator calls"), "{failure}");
    }
}
