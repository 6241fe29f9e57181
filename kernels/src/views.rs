//! The parameters of a network as views of one flat vector, at the cost of one operator call.

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

use crate::message::{Message, check};

unsafe extern "C" {
    fn nasfw_views(
        out: *mut *mut C_tensor,
        flat: *const C_tensor,
        views: i64,
        dims: *const i64,
        sizes: *const i64,
    ) -> Message;
}

/// Views of the shapes `sizes`, one after the other, of a contiguous flat vector. Gradients of all orders flow back into
/// one vector; what no view uses gets zero. Works on any device and kind.
///
/// # Errors
/// A vector of another length.
pub fn views(flat: &Tensor, sizes: &[&[i64]]) -> Result<Vec<Tensor>, TchError> {
    let dims: Vec<i64> = sizes.iter().map(|s| s.len() as i64).collect();
    let mut out = vec![std::ptr::null_mut(); sizes.len()];
    // SAFETY: every pointer is valid for the call, and the arrays are as long as told.
    check(unsafe {
        nasfw_views(
            out.as_mut_ptr(),
            flat.as_ptr(),
            sizes.len() as i64,
            dims.as_ptr(),
            sizes.concat().as_ptr(),
        )
    })?;
    // SAFETY: on success every entry is a new tensor, ours to own.
    Ok(out
        .into_iter()
        .map(|t| unsafe { Tensor::from_ptr(t) })
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    proptest! {
        #[test]
        fn views_equal_narrowed_ones(
            shapes in prop::collection::vec(prop::collection::vec(1i64..4, 0..4), 1..6),
            used in prop::collection::vec(any::<bool>(), 6),
        ) {
            let sizes: Vec<&[i64]> = shapes.iter().map(Vec::as_slice).collect();
            let counts: Vec<i64> = sizes.iter().map(|s| s.iter().product()).collect();
            let flat = Tensor::randn([counts.iter().sum::<i64>()], (Kind::Double, Device::Cpu))
                .set_requires_grad(true);
            let ours = views(&flat, &sizes).unwrap();
            let mut at = 0;
            let plain: Vec<Tensor> = sizes.iter().zip(&counts).map(|(size, n)| {
                at += n;
                flat.narrow(0, at - n, *n).view(*size)
            }).collect();
            // The third power has first and second derivatives that differ everywhere.
            let second = |views: &[Tensor]| {
                let parts = views.iter().zip(&used).filter(|(_, used)| **used);
                let loss = parts
                    .map(|(v, _)| (v * v * v).sum(Kind::Double))
                    .fold(flat.square().sum(Kind::Double), |a, b| a + b);
                let first = Tensor::run_backward(&[loss], &[&flat], true, true).remove(0);
                let again = (&first * &first).sum(Kind::Double);
                let second = Tensor::run_backward(&[again], &[&flat], true, false).remove(0);
                (first.detach(), second)
            };
            for (a, b) in ours.iter().zip(&plain) {
                prop_assert_eq!(a, b);
                prop_assert_eq!(a.data_ptr(), b.data_ptr());
            }
            let (first, second_order) = second(&ours);
            let expected = second(&plain);
            prop_assert!(first.allclose(&expected.0, 1e-12, 1e-12, false));
            prop_assert!(second_order.allclose(&expected.1, 1e-12, 1e-12, false));
        }
    }

    #[test]
    fn a_vector_that_changes_before_its_backward_pass_is_noticed() {
        let mut flat = Tensor::ones([4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let view = views(&flat, &[&[2], &[2]]).unwrap().remove(0);
        let loss = (&view * &view).sum(Kind::Float);
        let _ = tch::no_grad(|| flat.g_add_scalar_(1.0));
        let error = Tensor::f_run_backward(&[loss], &[&flat], false, false).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("modified by an inplace operation"),
            "{error}"
        );
    }

    #[test]
    fn another_length_is_refused() {
        let flat = Tensor::ones([4], (Kind::Float, Device::Cpu));
        let error = views(&flat, &[&[5]]).unwrap_err();
        assert!(error.to_string().contains("does not hold 5"), "{error}");
    }
}
