//! Gradients against finite differences.

use tch::Tensor;

use super::report::Verdict;
use nasfw_framework::Result;
use nasfw_framework::rng::{self, Streams};

/// Relative error that a gradient in double precision may have.
const TOLERANCE: f64 = 1e-6;
/// Steps of the finite differences, for vectors of unit length. A kink (of ReLU, of a maximum) between the two ends
/// spoils one; the smaller the step, the rarer. A wrong gradient agrees at none.
const STEPS: [f64; 3] = [1e-5, 1e-6, 1e-7];
const DIRECTIONS: u64 = 4;

/// Compares a gradient with finite differences along random directions of unit length: `values` gives, for a change of
/// the vector, the values of everything that was differentiated; they are to be averaged with `shares`.
pub(super) fn compare(
    gradient: &Tensor,
    shares: &[f64],
    mut values: impl FnMut(&Tensor) -> Result<Vec<f64>>,
) -> Result<Verdict> {
    let along = directions(gradient);
    let mut first = None;
    for h in STEPS {
        let mut slopes = vec![];
        for d in &along {
            let (ahead, behind) = (values(&(d * h))?, values(&(d * -h))?);
            if ahead.len() != shares.len() || behind.len() != shares.len() {
                return Ok(Verdict::Broken(
                    "how many losses are differentiated changes when the vector is moved by a hair"
                        .into(),
                ));
            }
            let pairs = ahead.iter().zip(&behind);
            slopes.push(pairs.map(|(a, b)| (a - b) / (2.0 * h)).collect());
        }
        let verdict = judge(gradient, &along, &slopes, shares);
        if verdict == Verdict::Held {
            return Ok(verdict);
        }
        first.get_or_insert(verdict);
    }
    Ok(first.unwrap_or(Verdict::Held))
}

fn directions(like: &Tensor) -> Vec<Tensor> {
    let streams = Streams::new(3);
    (0..DIRECTIONS)
        .map(|i| {
            let d = rng::normal(
                &mut streams.at("direction", i),
                &like.size(),
                like.kind(),
                like.device(),
            );
            &d / d.norm()
        })
        .collect()
}

/// Σ a b.
pub(super) fn dot(a: &Tensor, b: &Tensor) -> f64 {
    (a * b).sum(a.kind()).double_value(&[])
}

/// Compares a gradient with slopes along directions: `slopes[direction][differentiation]`.
fn judge(gradient: &Tensor, along: &[Tensor], slopes: &[Vec<f64>], shares: &[f64]) -> Verdict {
    let seen: Vec<f64> = along.iter().map(|d| dot(gradient, d)).collect();
    let mean = |s: &Vec<f64>| -> f64 { s.iter().zip(shares).map(|(s, w)| s * w).sum() };
    let expected: Vec<f64> = slopes.iter().map(mean).collect();
    let scale = expected
        .iter()
        .chain(&seen)
        .fold(gradient.norm().double_value(&[]), |m, v| m.max(v.abs()));
    let agree = |a: &[f64], b: &[f64]| {
        a.iter()
            .zip(b)
            .all(|(a, b)| (a - b).abs() <= TOLERANCE * scale.max(1e-9))
    };
    if agree(&seen, &expected) {
        return Verdict::Held;
    }
    let mut message = format!(
        "along a random direction the gradient has the slope {:.9e}, a finite difference of the loss gives {:.9e}",
        seen[0], expected[0]
    );
    let last: Vec<f64> = slopes.iter().filter_map(|s| s.last().copied()).collect();
    let share = shares.last().copied().unwrap_or(1.0);
    let of_last: Vec<f64> = last.iter().map(|s| s * share).collect();
    let ratios: Vec<f64> = seen.iter().zip(&expected).map(|(a, b)| a / b).collect();
    let steady = ratios.iter().all(|r| (r / ratios[0] - 1.0).abs() < 1e-4);
    if shares.len() > 1 && (agree(&seen, &last) || agree(&seen, &of_last)) {
        message += &format!(
            "; only the last of {} differentiated losses counts, the others are computed and thrown away",
            shares.len()
        );
    } else if steady && ratios[0].is_finite() {
        message += &format!("; in every direction it is {:.6} times that", ratios[0]);
    }
    Verdict::Broken(message)
}
