//! Derivatives of a scalar.

use tch::Tensor;

use crate::error::Result;

/// Gradients of a scalar with respect to leaves; zero where it does not depend on one.
///
/// # Errors
/// What libtorch says of operators without a derivative.
pub fn differentiate(loss: &Tensor, leaves: &[&Tensor]) -> Result<Vec<Tensor>> {
    backward(loss, leaves, false, false)
}

/// As [`differentiate`], keeping the graph; with `twice` the gradients have graphs of their own.
///
/// # Errors
/// Those of [`differentiate`].
pub fn differentiate_again(loss: &Tensor, leaves: &[&Tensor], twice: bool) -> Result<Vec<Tensor>> {
    backward(loss, leaves, true, twice)
}

fn backward(loss: &Tensor, leaves: &[&Tensor], keep: bool, twice: bool) -> Result<Vec<Tensor>> {
    if !loss.requires_grad() {
        // libtorch does not survive a scalar without a graph.
        return Ok(leaves.iter().map(|l| l.detach().zeros_like()).collect());
    }
    let gradients = Tensor::f_run_backward(&[loss], leaves, keep, twice)?;
    Ok(gradients
        .into_iter()
        .zip(leaves)
        .map(|(g, leaf)| {
            if g.defined() {
                g
            } else {
                leaf.detach().zeros_like()
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tch::Kind;

    #[test]
    fn what_a_loss_does_not_depend_on_has_the_gradient_zero() {
        let leaf = || Tensor::from_slice(&[1.0, 2.0]).set_requires_grad(true);
        let (a, b) = (leaf(), leaf());
        let gradients = differentiate(&a.square().sum(Kind::Double), &[&a, &b]).unwrap();
        assert_eq!(gradients, [&a.detach() * 2, b.detach().zeros_like()]);
        let constant = differentiate(&a.detach().sum(Kind::Double), &[&b]).unwrap();
        assert_eq!(constant, [b.detach().zeros_like()]);
    }
}
