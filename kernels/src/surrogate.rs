//! Scalars whose gradients are known: what a loss leaves behind whose graph is gone.

use std::ptr;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::{Message, check};

unsafe extern "C" {
    fn nasfw_surrogate(
        out: *mut *mut C_tensor,
        value: *const C_tensor,
        inputs: *const *mut C_tensor,
        gradients: *const *mut C_tensor,
        count: usize,
    ) -> Message;
}

/// A scalar with the value of `value`, whose gradient with respect to `inputs[i]` is `gradients[i]`, of the same shape.
/// Inputs keep their graphs, so derivatives go on to what they were made from. A second derivative is an error when it
/// is asked for: it is not known.
///
/// # Errors
/// Lists of different lengths, shapes that differ, and what libtorch refuses.
pub fn scalar(
    value: &Tensor,
    inputs: &[&Tensor],
    gradients: &[Tensor],
) -> Result<Tensor, TchError> {
    let fits = inputs.len() == gradients.len()
        && inputs
            .iter()
            .zip(gradients)
            .all(|(x, g)| x.size() == g.size());
    if !fits {
        return Err(TchError::Shape(
            "every input needs a gradient of its shape".into(),
        ));
    }
    let inputs: Vec<_> = inputs.iter().map(|t| t.as_ptr().cast_mut()).collect();
    let gradients: Vec<_> = gradients.iter().map(|t| t.as_ptr().cast_mut()).collect();
    let mut scalar = ptr::null_mut();
    // SAFETY: the pointers are those of live tensors and of `count` of them.
    check(unsafe {
        nasfw_surrogate(
            &mut scalar,
            value.as_ptr(),
            inputs.as_ptr(),
            gradients.as_ptr(),
            inputs.len(),
        )
    })?;
    // SAFETY: on success it is a new tensor, ours to own.
    Ok(unsafe { Tensor::from_ptr(scalar) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tch::{Device, Kind, no_grad};

    fn numbers(t: &Tensor) -> Vec<f64> {
        Vec::try_from(t.detach()).unwrap()
    }

    /// θ² + θ·a, a = φ³, at θ = (1, 2), φ = (3, -1), as a surrogate with the slopes of the two inputs θ and a.
    fn example() -> (Tensor, Tensor, Tensor) {
        let leaf = |v: [f64; 2]| Tensor::from_slice(&v).set_requires_grad(true);
        let (theta, phi) = (leaf([1.0, 2.0]), leaf([3.0, -1.0]));
        let a = phi.pow_tensor_scalar(3);
        let (value, slopes) = no_grad(|| {
            let value = (theta.square() + &theta * &a).sum(Kind::Double);
            (value, [&theta * 2 + &a, theta.copy()])
        });
        let loss = scalar(&value, &[&theta, &a], &slopes).unwrap();
        (loss, theta, phi)
    }

    #[test]
    fn value_and_gradients_are_those_given_and_go_on_through_the_graph() {
        let (loss, theta, phi) = example();
        assert_eq!(loss.double_value(&[]), 5.0 + 25.0);
        let slopes = Tensor::run_backward(&[&loss * 2], &[&theta, &phi], false, false);
        assert_eq!(numbers(&slopes[0]), [2.0 * 29.0, 2.0 * 3.0]);
        assert_eq!(numbers(&slopes[1]), [2.0 * 27.0, 2.0 * 2.0 * 3.0]);
        // As any graph that was not kept.
        assert!(Tensor::f_run_backward(&[&loss], &[&theta], false, false).is_err());
    }

    #[test]
    fn a_second_derivative_is_refused() {
        let (loss, theta, _) = example();
        let error = Tensor::f_run_backward(&[&loss], &[&theta], true, true).unwrap_err();
        assert!(
            error.to_string().contains("can't be differentiated twice"),
            "{error}"
        );
        // Kept graphs serve again.
        for _ in 0..2 {
            Tensor::f_run_backward(&[&loss], &[&theta], true, false).unwrap();
        }
    }

    #[test]
    fn gradients_of_another_shape_are_refused() {
        let x = Tensor::ones([2], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let value = Tensor::from(1.0);
        assert!(
            scalar(
                &value,
                &[&x],
                &[Tensor::ones([3], (Kind::Double, Device::Cpu))]
            )
            .is_err()
        );
        assert!(scalar(&value, &[&x], &[]).is_err());
    }
}
