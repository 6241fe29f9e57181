//! Average pooling with the right gradient on every device.

use tch::Tensor;

/// Means over windows of `kernel`² pixels of images `[n, c, h, w]`, `stride` pixels apart. Pixels of the padding count
/// neither in the sum nor in the number. The memory format stays.
///
/// On GPUs libtorch's gradient is wrong, without a word, for padded windows over images in channels-last format (seen in
/// 2.11; pytorch/pytorch#188344), so there the images get a margin of zeros and the windows no padding.
pub fn average_pool(images: &Tensor, kernel: i64, stride: i64, padding: i64) -> Tensor {
    if padding > 0 && images.device().is_cuda() {
        with_margin(images, kernel, stride, padding)
    } else {
        images.avg_pool2d([kernel; 2], [stride; 2], [padding; 2], false, false, None)
    }
}

/// The same by other means: means over windows of the images with a margin, divided by the share of each window that
/// lies in the images.
fn with_margin(images: &Tensor, kernel: i64, stride: i64, margin: i64) -> Tensor {
    let means = |x: &Tensor| {
        let x = x.constant_pad_nd([margin; 4]);
        x.avg_pool2d([kernel; 2], [stride; 2], [0, 0], false, true, None)
    };
    let size = images.size();
    let inside = Tensor::ones([1, 1, size[2], size[3]], (images.kind(), images.device()));
    means(images) / means(&inside)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::network::channels_last;
    use crate::rng::{Streams, normal};

    fn images(size: [i64; 4], seed: u64) -> Tensor {
        let mut rng = Streams::new(seed).at("images", 0);
        normal(&mut rng, &size, Kind::Double, Device::Cpu)
    }

    /// Result and gradient of its sum with random factors.
    fn both(x: &Tensor, pool: impl Fn(&Tensor) -> Tensor) -> [Tensor; 2] {
        let x = x.detach().set_requires_grad(true);
        let y = pool(&x);
        let factors = images(y.size().try_into().unwrap(), 1);
        let loss = (&y * factors).sum(Kind::Double);
        let gradient = Tensor::run_backward(&[loss], &[&x], false, false);
        [y.detach(), gradient[0].shallow_clone()]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_margin_and_padding_are_one(
            size in (1i64..3, 1i64..4, 5i64..10, 5i64..10),
            (kernel, margin) in (2i64..6).prop_flat_map(|k| (Just(k), 1..=k / 2)),
            stride in 1i64..4,
            last in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let x = images(size.into(), seed);
            let x = if last { channels_last(&x) } else { x };
            let padded = both(&x, |x| average_pool(x, kernel, stride, margin));
            let other = both(&x, |x| with_margin(x, kernel, stride, margin));
            for (a, b) in padded.iter().zip(&other) {
                prop_assert_eq!(a.size(), b.size());
                prop_assert!((a - b).abs().max().double_value(&[]) < 1e-12);
            }
        }
    }

    #[test]
    fn the_memory_format_stays() {
        let x = channels_last(&images([2, 3, 8, 8], 0));
        let y = with_margin(&x, 3, 1, 1);
        assert_eq!(y.stride(), channels_last(&y).stride());
    }
}
