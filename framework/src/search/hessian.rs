//! Second derivatives.

use tch::{Kind, Tensor, no_grad};

use super::running::Search;
use crate::arch::RelaxedArch;
use crate::batches::Batch;
use crate::error::Result;
use crate::gradients::differentiate_again;
use crate::rng::{self, Rng};
use crate::supernet::SupernetOptions;

impl Search {
    /// As [`Search::loss`], by operators that have derivatives of every order and in one piece whatever
    /// `trainer.micro_batch` says: slower, and with a graph of the whole batch in memory.
    ///
    /// # Errors
    /// Those of [`Search::loss`].
    pub fn smooth_loss(
        &mut self,
        theta: &Tensor,
        arch: &RelaxedArch,
        batch: &Batch,
    ) -> Result<Tensor> {
        let plain = match self.plain.take() {
            Some(plain) => plain,
            None => {
                let options = SupernetOptions {
                    plain: true,
                    ..self.options.clone()
                };
                self.space.supernet(self.task, &options)?
            }
        };
        let arch = &self.with_scalars(arch);
        let loss = self.metered(theta, arch, batch, |search, theta, noise| {
            search.whole(plain.as_ref(), theta, arch, batch, noise)
        });
        self.plain = Some(plain);
        loss
    }

    /// The mixed second derivative of a [`Search::smooth_loss`] times a vector, ∇_to (∇_from L · v), by double backward
    /// (Pearlmutter 1994). `vector` has the shape of `from`, the result that of `to`; zero where L has no such part.
    ///
    /// # Errors
    /// A loss of operators without second derivatives.
    pub fn hessian_product(
        &self,
        loss: &Tensor,
        from: &Tensor,
        vector: &Tensor,
        to: &Tensor,
    ) -> Result<Tensor> {
        let curvature = Curvature::new(loss, from)?;
        curvature.product(vector, to)
    }
}

/// The gradient of a loss with a graph of its own, from which products with the Hessian are taken.
#[derive(Debug)]
pub struct Curvature {
    gradient: Tensor,
}

impl Curvature {
    /// Of a [`Search::smooth_loss`] with respect to `leaf`.
    ///
    /// # Errors
    /// A loss of operators without second derivatives.
    pub fn new(loss: &Tensor, leaf: &Tensor) -> Result<Self> {
        let gradient = differentiate_again(loss, &[leaf], true)?.remove(0);
        Ok(Self { gradient })
    }

    /// ∇_to (gradient · vector).
    ///
    /// # Errors
    /// A loss of operators without second derivatives.
    pub fn product(&self, vector: &Tensor, to: &Tensor) -> Result<Tensor> {
        let slope = (&self.gradient * vector.detach()).sum(self.gradient.kind());
        Ok(differentiate_again(&slope, &[to], false)?.remove(0))
    }
}

/// The largest eigenvalue of a symmetric matrix of `n` rows that is known by its products with vectors (`[n]`, double),
/// by Lanczos's method with full reorthogonalisation (Golub & Van Loan, chapter 10). It ends when the residual of the
/// eigenvalue is below `tolerance` times its size, at the latest after `n` products, when it is exact but for rounding.
///
/// # Errors
/// Those of `product`.
pub fn top_eigenvalue(
    n: i64,
    tolerance: f64,
    rng: &mut Rng,
    mut product: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<f64> {
    let normalised = |v: Tensor| &v / v.norm();
    let draw = |rng: &mut Rng| rng::normal(rng, &[n], Kind::Double, tch::Device::Cpu);
    let mut basis = vec![normalised(draw(rng))];
    let (mut diagonal, mut beside): (Vec<f64>, Vec<f64>) = (vec![], vec![]);
    loop {
        let last = &basis[basis.len() - 1];
        let mut next = product(last)?
            .to_kind(Kind::Double)
            .to_device(tch::Device::Cpu);
        let (top, residual) = no_grad(|| {
            diagonal.push(next.dot(last).double_value(&[]));
            // Twice is enough (Parlett, Kahan).
            for _ in 0..2 {
                for v in &basis {
                    next = &next - v * next.dot(v);
                }
            }
            let length = next.norm().double_value(&[]);
            let (top, share) = top_of_tridiagonal(&diagonal, &beside);
            beside.push(length);
            (top, length * share)
        });
        let exact = basis.len() as i64 == n || !top.is_finite();
        if exact || residual <= tolerance * top.abs() {
            return Ok(top);
        }
        let scale = diagonal
            .iter()
            .chain(&beside)
            .fold(0.0, |m: f64, x| m.max(x.abs()));
        let length = beside[beside.len() - 1];
        // An invariant subspace: go on in another direction, which the next entry of zero decouples.
        if length <= 1e-12 * scale {
            let mut fresh = draw(rng);
            for _ in 0..2 {
                for v in &basis {
                    fresh = &fresh - v * fresh.dot(v);
                }
            }
            let at = beside.len() - 1;
            beside[at] = 0.0;
            basis.push(normalised(fresh));
        } else {
            basis.push(next / length);
        }
    }
}

/// The largest eigenvalue of a symmetric tridiagonal matrix, and the last entry of its eigenvector in size.
fn top_of_tridiagonal(diagonal: &[f64], beside: &[f64]) -> (f64, f64) {
    let matrix = Tensor::from_slice(diagonal).diag(0);
    let matrix = if beside.is_empty() {
        matrix
    } else {
        let off = Tensor::from_slice(beside);
        matrix + off.diag(1) + off.diag(-1)
    };
    let (values, vectors) = matrix.linalg_eigh("L");
    let last = diagonal.len() as i64 - 1;
    let share = vectors.double_value(&[last, last]).abs();
    (values.double_value(&[last]), share)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rng::Streams;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Dense matrices of any spectrum, repeated and negative eigenvalues included, against libtorch's own.
        #[test]
        fn the_top_eigenvalue_is_that_of_the_dense_matrix(
            spectrum in prop::collection::vec(prop_oneof![Just(0.0), Just(1.0), -3.0..3.0f64], 1..40),
            seed in 0u64..1000,
        ) {
            let n = spectrum.len() as i64;
            let mut rng = Streams::new(seed).at("basis", 0);
            let square = rng::normal(&mut rng, &[n, n], Kind::Double, tch::Device::Cpu);
            let (q, _) = Tensor::linalg_qr(&square, "reduced");
            let matrix = q.matmul(&Tensor::from_slice(&spectrum).diag(0)).matmul(&q.tr());
            let expected = spectrum.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut products = 0;
            let found = top_eigenvalue(n, 1e-10, &mut rng, |v| {
                products += 1;
                Ok(matrix.mv(v))
            }).unwrap();
            prop_assert!(products <= n);
            prop_assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        }
    }
}
