//! The LASSO of a handful of measurements, solved exactly.

use nasfw_framework::Result;
use tch::{Device, Kind, Tensor};

use crate::sparse;

/// The minimiser of ½ ‖A z − b‖² + penalty ‖z‖₁ for `a` = A (`[m, n]`, double, on the CPU) and penalty > 0.
///
/// By the homotopy of Osborne, Presnell and Turlach 2000: the minimiser is piecewise linear in the penalty. From the penalty
/// at which it is zero on, it is followed from corner to corner, where a coordinate joins the support or leaves it. For
/// matrices in general position (random ones are) it is unique and this is exact but for rounding.
pub fn lasso(a: &Tensor, b: &[f64], penalty: f64) -> Result<Vec<f64>> {
    let n = a.size()[1] as usize;
    let gram = sparse::numbers(&a.tr().matmul(a));
    let gram = |i: usize, j: usize| gram[i * n + j];
    let mut z = vec![0.0; n];
    // Aᵀ(b − A z).
    let mut slopes = sparse::numbers(&a.tr().matmul(&Tensor::from_slice(b)));
    let Some(first) = (0..n).reduce(|i, j| {
        if slopes[j].abs() > slopes[i].abs() {
            j
        } else {
            i
        }
    }) else {
        return Ok(z);
    };
    let mut now = slopes[first].abs();
    let mut support = vec![first];
    // What has just left, and on which side: it does not come back at once.
    let mut left = None;
    // A path has a corner for every change of the support; this many are far more than any random problem has.
    for _ in 0..100 * n {
        if now <= penalty || support.is_empty() {
            break;
        }
        // The solution moves along Gram_S⁻¹ sign, all slopes of the support fall alike.
        let signs: Vec<f64> = support.iter().map(|&i| slopes[i].signum()).collect();
        let direction = solve(&support, &gram, &signs)?;
        let falls: Vec<f64> = (0..n)
            .map(|i| {
                support
                    .iter()
                    .zip(&direction)
                    .map(|(&j, d)| gram(i, j) * d)
                    .sum()
            })
            .collect();
        let mut by = now - penalty;
        let mut event: Option<(usize, bool)> = None;
        for i in (0..n).filter(|i| !support.contains(i)) {
            for sign in [1.0, -1.0].into_iter().filter(|s| left != Some((i, *s))) {
                // sign (slope − by fall) = now − by.
                let (gap, closing) = (now - sign * slopes[i], 1.0 - sign * falls[i]);
                if closing > 0.0 && gap / closing < by {
                    by = (gap / closing).max(0.0);
                    event = Some((i, true));
                }
            }
        }
        for (&i, d) in support.iter().zip(&direction) {
            let until = -z[i] / d;
            if z[i] * d < 0.0 && until < by {
                by = until;
                event = Some((i, false));
            }
        }
        for (&i, d) in support.iter().zip(&direction) {
            z[i] += by * d;
        }
        slopes
            .iter_mut()
            .zip(&falls)
            .for_each(|(s, f)| *s -= by * f);
        now -= by;
        left = None;
        match event {
            Some((i, true)) => support.push(i),
            Some((i, false)) => {
                z[i] = 0.0;
                support.retain(|&j| j != i);
                left = Some((i, slopes[i].signum()));
            }
            None => break,
        }
    }
    Ok(z)
}

/// x of Gram_S x = y.
fn solve(support: &[usize], gram: &dyn Fn(usize, usize) -> f64, y: &[f64]) -> Result<Vec<f64>> {
    let k = support.len() as i64;
    let entries: Vec<f64> = (support.iter())
        .flat_map(|&i| support.iter().map(move |&j| gram(i, j)))
        .collect();
    let matrix = Tensor::from_slice(&entries).view([k, k]);
    let y = Tensor::from_slice(y).view([k, 1]);
    let x = Tensor::f_linalg_solve(&matrix, &y, true)?;
    debug_assert_eq!((x.kind(), x.device()), (Kind::Double, Device::Cpu));
    Ok(sparse::numbers(&x))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nasfw_framework::rng::{self, Streams};
    use proptest::prelude::*;

    fn objective(a: &[Vec<f64>], b: &[f64], z: &[f64], penalty: f64) -> f64 {
        let residue = a.iter().zip(b).map(|(row, b)| {
            let sum: f64 = row.iter().zip(z).map(|(a, z)| a * z).sum();
            sum - b
        });
        0.5 * residue.map(|r| r * r).sum::<f64>() + penalty * z.iter().map(|z| z.abs()).sum::<f64>()
    }

    /// Coordinate descent (Friedman et al. 2007): each coordinate in turn to its minimum.
    fn by_coordinates(a: &[Vec<f64>], b: &[f64], penalty: f64) -> Vec<f64> {
        let n = a[0].len();
        let mut z = vec![0.0; n];
        let mut residue = b.to_vec();
        for _ in 0..200_000 {
            let mut moved: f64 = 0.0;
            for j in 0..n {
                let column: Vec<f64> = a.iter().map(|row| row[j]).collect();
                let size: f64 = column.iter().map(|c| c * c).sum();
                let rho: f64 =
                    column.iter().zip(&residue).map(|(c, r)| c * r).sum::<f64>() + size * z[j];
                let next = if rho > penalty {
                    (rho - penalty) / size
                } else if rho < -penalty {
                    (rho + penalty) / size
                } else {
                    0.0
                };
                let by = next - z[j];
                residue
                    .iter_mut()
                    .zip(&column)
                    .for_each(|(r, c)| *r -= c * by);
                z[j] = next;
                moved = moved.max(by.abs());
            }
            if moved < 1e-13 {
                break;
            }
        }
        z
    }

    fn problem(m: usize, n: usize, seed: u64) -> (Tensor, Vec<Vec<f64>>, Vec<f64>) {
        let options = (Kind::Double, Device::Cpu);
        let shape = [m as i64, n as i64];
        let a = rng::uniform(
            &mut Streams::new(seed).at("a", 0),
            &shape,
            options.0,
            options.1,
        );
        let rows = sparse::numbers(&a).chunks(n).map(<[f64]>::to_vec).collect();
        let b = rng::normal(
            &mut Streams::new(seed).at("b", 0),
            &[m as i64],
            options.0,
            options.1,
        );
        (a, rows, sparse::numbers(&b))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn it_is_what_coordinate_descent_finds(m in 1usize..7, n in 1usize..20, seed in 0u64..10_000, penalty in 0.05f64..2.0) {
            let (a, rows, b) = problem(m, n, seed);
            let (own, other) = (lasso(&a, &b, penalty).unwrap(), by_coordinates(&rows, &b, penalty));
            for (x, y) in own.iter().zip(&other) {
                prop_assert!((x - y).abs() < 1e-6, "{own:?}\n{other:?}");
            }
            prop_assert!(objective(&rows, &b, &own, penalty) <= objective(&rows, &b, &other, penalty) + 1e-12);
        }

        /// As small a penalty, and as small measurements, as in a search: coordinate descent would need millions of rounds, the
        /// conditions of optimality need none. No more coordinates than measurements are not zero.
        #[test]
        fn it_is_optimal_at_the_published_size(nodes in 2usize..6, seed in 0u64..10_000) {
            let (a, rows, b) = problem(7, nodes * 7, seed);
            let b: Vec<f64> = b.iter().map(|x| x * 1e-3).collect();
            let penalty = 1e-5;
            let z = lasso(&a, &b, penalty).unwrap();
            let residue: Vec<f64> = rows.iter().zip(&b).map(|(row, b)| b - row.iter().zip(&z).map(|(a, z)| a * z).sum::<f64>()).collect();
            for (j, z) in z.iter().enumerate() {
                let slope: f64 = rows.iter().zip(&residue).map(|(row, r)| row[j] * r).sum();
                let off = if *z == 0.0 { (slope.abs() - penalty).max(0.0) } else { slope - penalty * z.signum() };
                prop_assert!(off.abs() < 1e-9 * penalty.max(1e-3), "{j}: {off:e}");
            }
            prop_assert!(z.iter().filter(|z| **z != 0.0).count() <= 7);
        }
    }

    #[test]
    fn a_large_penalty_leaves_nothing() {
        let (a, _, b) = problem(3, 5, 1);
        assert_eq!(lasso(&a, &b, 1e3).unwrap(), [0.0; 5]);
        assert_eq!(lasso(&a, &[0.0; 3], 1e-5).unwrap(), [0.0; 5]);
    }
}
