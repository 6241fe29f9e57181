//! Batch norm over all parts of a batch, whichever process computes them.

use std::cell::RefCell;

use nasfw_kernels::group::is_lost;
use tch::{Kind, Tensor, no_grad};

use super::processes::Ranks;
use crate::error::{Error, Result};

/// Who shares statistics on this thread, and what went wrong meanwhile.
struct Scope {
    ranks: Ranks,
    failed: Option<Error>,
}

thread_local! {
    static OPEN: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// Closes the scope, also after a panic.
struct Open;

impl Drop for Open {
    fn drop(&mut self) {
        OPEN.set(None);
    }
}

/// Does `run`, in which [`batch_norm`] takes its statistics over the parts of all processes.
///
/// # Errors
/// Those of `run`, and a process that is lost.
pub(crate) fn over<T>(ranks: &Ranks, run: impl FnOnce() -> Result<T>) -> Result<T> {
    OPEN.set(Some(Scope {
        ranks: ranks.clone(),
        failed: None,
    }));
    let _open = Open;
    let done = run().map_err(|error| match error {
        Error::Tensor(e) if is_lost(&e) => ranks.gone(&e),
        other => other,
    });
    let failed = OPEN.with_borrow_mut(|open| open.as_mut().and_then(|scope| scope.failed.take()));
    failed.map_or(done, Err)
}

/// Whether statistics are taken over several processes on this thread. What knows nothing of it must refuse.
pub fn is_synchronised() -> bool {
    OPEN.with_borrow(Option::is_some)
}

/// Batch norm of `[n, channels, …]`, as [`Tensor::batch_norm`]. Layers of supernets and networks take it in its place, so that
/// with `trainer.sync_batch_norm` the statistics of training are those of the whole batch, whose parts several processes
/// compute, and its gradients go through them to all parts.
pub fn batch_norm(
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    running: [Option<&Tensor>; 2],
    training: bool,
    momentum: f64,
    eps: f64,
) -> Tensor {
    let [mean, var] = running;
    if !training || !is_synchronised() {
        return x.batch_norm(weight, bias, mean, var, training, momentum, eps, true);
    }
    // Under autocast numbers come with few digits, which sums need.
    let kind = x.kind();
    let x = &match kind {
        Kind::BFloat16 | Kind::Half => x.to_kind(Kind::Float),
        _ => x.shallow_clone(),
    };
    let moments = moments(x).unwrap_or_else(|failed| {
        // Told when the pass ends, by what opened the scope; until then any numbers do.
        OPEN.with_borrow_mut(|open| {
            if let Some(scope) = open {
                scope.failed.get_or_insert(failed);
            }
        });
        let none = Tensor::zeros([x.size()[1]], (x.kind(), x.device()));
        [
            none.shallow_clone(),
            none.ones_like(),
            none.ones_like() * 2.0,
        ]
    });
    let [m, v, n] = moments;
    no_grad(|| {
        let follow = |running: Option<&Tensor>, now: Tensor| {
            if let Some(running) = running {
                let moved = running * (1.0 - momentum) + now * momentum;
                running.shallow_clone().copy_(&moved);
            }
        };
        follow(mean, m.detach());
        // Of the variance the unbiased estimate, as libtorch's.
        follow(var, v.detach() * &n / (&n - 1.0));
    });
    let along = |t: &Tensor| {
        let mut shape = vec![1; x.dim()];
        shape[1] = -1;
        t.view(shape.as_slice())
    };
    let y = (x - along(&m)) * along(&(v + eps).rsqrt());
    let y = weight.map_or_else(|| y.shallow_clone(), |w| &y * along(w));
    let y = bias.map_or_else(|| y.shallow_clone(), |b| &y + along(b));
    y.to_kind(kind)
}

/// Mean and variance of every channel over all processes, and the number of values, each `[channels]`.
fn moments(x: &Tensor) -> Result<[Tensor; 3]> {
    let ranks = OPEN.with_borrow(|open| open.as_ref().map(|scope| scope.ranks.clone()));
    let ranks = ranks.unwrap_or_else(Ranks::alone);
    let others: Vec<i64> = (0..x.dim() as i64).filter(|d| *d != 1).collect();
    let total = |x: &Tensor| x.sum_dim_intlist(others.as_slice(), false, x.kind());
    let channels = x.size()[1];
    let own = x.numel() as f64 / channels as f64;
    let own = Tensor::full([channels], own, (x.kind(), x.device()));
    let first = ranks.sum(&Tensor::cat(&[total(x), own], 0))?;
    let n = first.narrow(0, channels, channels).detach();
    let mean = first.narrow(0, 0, channels) / &n;
    let mut shape = vec![1; x.dim()];
    shape[1] = -1;
    // In a second round: the difference of two large sums would lose what it is made of.
    let apart = (x - mean.view(shape.as_slice())).square();
    let var = ranks.sum(&total(&apart))? / &n;
    Ok([mean, var, n])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tch::Device;

    /// By one process it is libtorch's own: values, running statistics, gradients.
    #[test]
    fn it_is_batch_norm() {
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Double, Device::Cpu));
        for shape in [&[6, 3, 4, 5][..], &[7, 3]] {
            let x = (random(shape) * 3.0 + 2.0).set_requires_grad(true);
            let [w, b] = [0, 1].map(|_| random(&[3]).set_requires_grad(true));
            let slope = random(shape);
            let look = |together: bool| {
                let [mean, var] =
                    [0.5, 1.5].map(|v| Tensor::full([3], v, (Kind::Double, Device::Cpu)));
                let y = || {
                    batch_norm(
                        &x,
                        Some(&w),
                        Some(&b),
                        [Some(&mean), Some(&var)],
                        true,
                        0.1,
                        1e-5,
                    )
                };
                let y = match together {
                    true => over(&Ranks::alone(), || Ok(y())).unwrap(),
                    false => y(),
                };
                let loss = (&y * &slope).sum(Kind::Double);
                let mut all = Tensor::run_backward(&[loss], &[&x, &w, &b], false, false);
                all.extend([y.detach(), mean, var]);
                all
            };
            for (i, (a, b)) in look(true).iter().zip(look(false)).enumerate() {
                assert!((a - b).abs().max().double_value(&[]) < 1e-12, "{i}");
            }
        }
        assert!(!is_synchronised());
    }
}
