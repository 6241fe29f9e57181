//! What the machine can do at best.

use std::time::Instant;

use serde::Serialize;
use tch::{Device, Kind, Tensor, no_grad};

use crate::device::synchronise;

/// Rows and columns of the matrices, and numbers of the vectors.
const SIDE: i64 = 2048;
const NUMBERS: i64 = 1 << 26;
const REPEATS: usize = 7;

/// The two limits of the roofline (Williams, Waterman, Patterson 2009), measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Machine {
    /// Billions of f32 operations a second in a product of two matrices of 2048 × 2048, a multiply-add being two.
    pub gflops: f64,
    /// Billions of bytes a second that a copy of 256 MB reads and writes.
    pub gbytes: f64,
}

impl Machine {
    /// Measures a device: the best of some repeats, in a second or two.
    pub fn measure(device: Device) -> Self {
        no_grad(|| {
            let options = (Kind::Float, device);
            let (a, b) = (
                Tensor::rand([SIDE, SIDE], options),
                Tensor::rand([SIDE, SIDE], options),
            );
            let mut product = Tensor::zeros([SIDE, SIDE], options);
            let matmul = best(device, || {
                let _ = Tensor::matmul_out(&product, &a, &b);
            });
            let source = Tensor::ones([NUMBERS], options);
            product = Tensor::zeros([NUMBERS], options);
            let copy = best(device, || product.copy_(&source));
            Self {
                gflops: 2.0 * (SIDE as f64).powi(3) / matmul / 1e9,
                gbytes: 2.0 * 4.0 * NUMBERS as f64 / copy / 1e9,
            }
        })
    }
}

/// Seconds of the fastest of some repeats.
fn best(device: Device, mut work: impl FnMut()) -> f64 {
    let once = |_| {
        synchronise(device);
        let began = Instant::now();
        work();
        synchronise(device);
        began.elapsed().as_secs_f64()
    };
    (0..REPEATS).map(once).fold(f64::INFINITY, f64::min)
}
