//! Convolutions that leave other memory alone.

use tch::{Device, Kind, Tensor};

use super::graph::Conv;

/// Input channels from which on libtorch is right: a register of AVX2 holds so many numbers.
const REGISTER: i64 = 8;

/// The same values with channels innermost in memory, where convolutions are faster.
pub fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// A convolution of images `[n, c, h, w]` with `weight` (`[outputs, c / groups, kh, kw]`) and `bias` (`[outputs]`).
///
/// On processors with AVX2 and without AVX-512 oneDNN's gradient of the weights of 1 × 1 kernels that step over pixels writes
/// beyond its memory, where images in channels-last format have two to seven channels in single precision: what follows is
/// a wrong number, or an abort somewhere else (seen in libtorch 2.13). So there the pixels are chosen first.
pub fn convolution(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, conv: &Conv) -> Tensor {
    let size = weight.size();
    let narrow = size[1] < REGISTER && x.device() == Device::Cpu && x.kind() != Kind::Double;
    let points = conv.kernel == [1, 1] && conv.padding == [0, 0];
    let with = |x: &Tensor, stride: [i64; 2]| {
        let dilation = [conv.dilation; 2];
        x.conv2d(weight, bias, stride, conv.padding, dilation, conv.groups)
    };
    if !(narrow && points) || conv.stride == [1, 1] {
        return with(x, conv.stride);
    }
    let [down, right] = conv.stride;
    let chosen = x.slice(2, None, None, down).slice(3, None, None, right);
    with(&channels_last(&chosen), [1, 1])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::rng::{Streams, normal};

    /// Result and gradients of its sum with random factors, by the images and the weights.
    fn all(x: &Tensor, w: &Tensor, factors: &Tensor, conv: &Conv) -> Vec<Tensor> {
        let [x, w] = [x, w].map(|t| t.detach().set_requires_grad(true));
        let y = convolution(&x, &w, None, conv);
        let loss = (&y * factors.to_kind(y.kind())).sum(y.kind());
        let mut found = Tensor::run_backward(&[loss], &[&x, &w], false, false);
        found.push(y.detach());
        found
    }

    /// In single precision it is what it is in double precision, and nothing else in memory changes: the allocator would notice.
    #[test]
    fn few_channels_are_no_trouble() {
        for (inputs, outputs) in [
            (1, 3),
            (2, 1),
            (2, 4),
            (3, 2),
            (4, 2),
            (6, 4),
            (7, 9),
            (8, 4),
            (9, 2),
        ] {
            for stride in [1, 2, 3] {
                for groups in [1, 2] {
                    let (inputs, outputs) = (inputs * groups, outputs * groups);
                    let conv = Conv {
                        groups,
                        ..Conv::same(1).stride(stride)
                    };
                    let mut rng = Streams::new(1).at("numbers", 0);
                    let mut draw = |size: &[i64]| normal(&mut rng, size, Kind::Float, Device::Cpu);
                    for _ in 0..10 {
                        let x = channels_last(&draw(&[4, inputs, 9, 8]));
                        let w = draw(&[outputs, inputs / groups, 1, 1]);
                        let size = [9, 8].map(|n: i64| (n - 1) / stride + 1);
                        let factors = draw(&[4, outputs, size[0], size[1]]);
                        let here = all(&x, &w, &factors, &conv);
                        let there = all(
                            &x.to_kind(Kind::Double),
                            &w.to_kind(Kind::Double),
                            &factors,
                            &conv,
                        );
                        for (a, b) in here.iter().zip(&there) {
                            let error = (a.to_kind(Kind::Double) - b).abs().max().double_value(&[]);
                            assert!(
                                error < 1e-3,
                                "{inputs} to {outputs}, stride {stride}, {groups} groups: {error}"
                            );
                        }
                    }
                }
            }
        }
    }
}
