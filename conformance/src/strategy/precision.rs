//! Single precision, in which searches run unless somebody asks for another.

use tch::{Kind, Tensor};

use super::super::report::Verdict;
use super::super::rig::Rig;
use super::super::trace::Act;
use super::gradients::looked_at;
use super::runs::difference;
use nasfw_framework::Result;
use nasfw_framework::config::Precision;
use nasfw_framework::listen::Vector;

/// Relative difference that rounding may make of a gradient. Quotients of differences, as those of DARTS's second order,
/// are good to a thousandth.
const ROUNDING: f64 = 0.02;

/// A whole search, the same interrupted after every step, and a step beside that in double precision.
pub(super) fn single_precision(rig: &Rig<'_>) -> Result<Verdict> {
    let mut problem = rig.problem.clone();
    problem.precision = Precision::Float;
    let single = rig.on(&problem);
    if let Some(what) = difference(&single.run(0, false)?, &single.run(0, true)?) {
        return Ok(Verdict::Broken(format!(
            "whole and interrupted differ: {what}"
        )));
    }
    let step = looked_at(rig)?;
    let (exact, rounded) = (
        rig.replay(step, None, None)?,
        single.replay(step, None, None)?,
    );
    let (exact, rounded) = (&exact.trace.acts, &rounded.trace.acts);
    if !same_architectures(exact, rounded) {
        // A draw fell on the other side of an edge.
        return Ok(Verdict::Held);
    }
    for vector in [Vector::Theta, Vector::Phi] {
        let (Some(a), Some(b)) = (gradient(exact, vector), gradient(rounded, vector)) else {
            continue;
        };
        let (apart, size) = (norm(&(double(a) - double(b))), norm(a));
        if apart.is_nan() || apart > ROUNDING * size.max(1e-6) {
            return Ok(Verdict::Broken(format!(
                "in step {step} the gradient that {} descends has the norm {size:.6e}, and in double precision one that \
                 differs by {apart:.6e}: more than rounding makes of it",
                vector.name()
            )));
        }
    }
    Ok(Verdict::Held)
}

fn double(t: &Tensor) -> Tensor {
    t.to_kind(Kind::Double)
}

fn norm(t: &Tensor) -> f64 {
    double(t).norm().double_value(&[])
}

/// The first gradient that a vector descends.
fn gradient(acts: &[Act], vector: Vector) -> Option<&Tensor> {
    acts.iter().find_map(|act| match act {
        Act::Update { of, gradient } if *of == vector => gradient.as_ref(),
        _ => None,
    })
}

/// Whether all losses were taken at the same architectures but for rounding.
fn same_architectures(a: &[Act], b: &[Act]) -> bool {
    let weights = |acts: &[Act]| -> Vec<Tensor> {
        let archs = acts.iter().filter_map(|act| match act {
            Act::Loss { arch, .. } => Some(&arch.weights),
            _ => None,
        });
        archs.flatten().map(double).collect()
    };
    let (a, b) = (weights(a), weights(b));
    a.len() == b.len()
        && a.iter()
            .zip(&b)
            .all(|(a, b)| a.size() == b.size() && (a - b).abs().max().double_value(&[]) < 1e-2)
}
