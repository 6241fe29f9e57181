//! Batches and augmentation against plain loops over pixels.

use std::collections::HashSet;

use nasfw_framework::batches::{Augment, Batch};
use nasfw_framework::rng::Streams;
use nasfw_framework::strategy::Split;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

/// Every result must be explained by one crop offset, one flip and one hole per image.
fn explained(input: &[f64], output: &[f64], (h, w): (i64, i64), a: Augment) -> bool {
    let at = |y: i64, x: i64| {
        if y < 0 || x < 0 || y >= h || x >= w {
            0.0
        } else {
            input[(y * w + x) as usize]
        }
    };
    let p = a.crop_padding;
    let flips: &[bool] = if a.flip { &[false, true] } else { &[false] };
    let holes: Vec<Option<(i64, i64)>> = if a.cutout > 0 {
        (0..h)
            .flat_map(|y| (0..w).map(move |x| Some((y, x))))
            .collect()
    } else {
        vec![None]
    };
    (-p..=p).any(|dy| {
        (-p..=p).any(|dx| {
            flips.iter().any(|&flip| {
                holes.iter().any(|hole| {
                    (0..h).all(|y| {
                        (0..w).all(|x| {
                            let half = a.cutout / 2;
                            let cut = hole.is_some_and(|(cy, cx)| {
                                y >= cy - half
                                    && y < cy - half + a.cutout
                                    && x >= cx - half
                                    && x < cx - half + a.cutout
                            });
                            let sx = if flip { w - 1 - x } else { x };
                            let want = if cut { 0.0 } else { at(y + dy, sx + dx) };
                            output[(y * w + x) as usize] == want
                        })
                    })
                })
            })
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn augmentation_is_crop_flip_cutout(seed in any::<u64>(), h in 3i64..7, w in 3i64..7, p in 0i64..3, flip in any::<bool>(), cutout in 0i64..4) {
        let a = Augment { crop_padding: p, flip, cutout, ..Augment::default() };
        let n = 3;
        // Distinct, non-zero pixels; two channels, the second the negative of the first.
        let first = Tensor::arange(n * h * w, (Kind::Double, Device::Cpu)).view([n, 1, h, w]) + 1.0;
        let images = Tensor::cat(&[&first, &-&first], 1);
        let out = a.apply(&images, &mut Streams::new(seed).at("a", 0));
        prop_assert_eq!(out.size(), images.size());
        let sum = out.select(1, 0) + out.select(1, 1);
        prop_assert_eq!(sum.abs().max().double_value(&[]), 0.0, "channels move together");
        for i in 0..n {
            let flat = |t: &Tensor| Vec::<f64>::try_from(t.get(i).get(0).contiguous().view([-1])).unwrap();
            prop_assert!(explained(&flat(&images), &flat(&out), (h, w), a));
        }
    }
}

#[test]
fn augmentation_uses_every_offset_and_both_flips() {
    let images = Tensor::arange(9, (Kind::Double, Device::Cpu))
        .view([1, 1, 3, 3])
        .repeat([400, 1, 1, 1])
        + 1.0;
    let a = Augment {
        crop_padding: 1,
        flip: true,
        ..Augment::default()
    };
    let out = a.apply(&images, &mut Streams::new(1).at("a", 0));
    let distinct: HashSet<String> = (0..400)
        .map(|i| {
            format!(
                "{:?}",
                Vec::<f64>::try_from(out.get(i).contiguous().view([-1])).unwrap()
            )
        })
        .collect();
    assert_eq!(
        distinct.len(),
        3 * 3 * 2,
        "nine offsets, each flipped or not"
    );
}

#[test]
fn streams_depend_on_seed_name_and_counter_alone() {
    use rand::Rng as _;
    let first = |seed: u64, name: &str, n: u64| Streams::new(seed).at(name, n).next_u64();
    assert_eq!(first(1, "xi", 5), first(1, "xi", 5));
    let all: HashSet<u64> = (0..4)
        .flat_map(|s| ["xi", "eps", "batch"].map(|name| (s, name)))
        .flat_map(|(s, name)| (0..10).map(move |n| first(s, name, n)))
        .collect();
    assert_eq!(all.len(), 4 * 3 * 10);
    assert_ne!(
        first(1, "xi", 0),
        Streams::new(1).child("xi", 0).at("xi", 0).next_u64()
    );
}

// ---- colour jitter -------------------------------------------------------------------------------------------------

/// Two images of 3 × 2 × 3 random colours, far enough from black and white that a weak change is not clipped.
fn colours(seed: u64) -> Tensor {
    let mut rng = Streams::new(seed).at("colours", 0);
    let shape = [2, 3, 2, 3];
    nasfw_framework::rng::uniform(&mut rng, &shape, Kind::Double, Device::Cpu) * 0.4 + 0.3
}

fn jittered(images: &Tensor, color_jitter: [f64; 4], seed: u64) -> Tensor {
    let a = Augment {
        color_jitter,
        ..Augment::default()
    };
    a.jitter(images, 1.0, &mut Streams::new(seed).at("j", 0))
}

/// The pixels of image `i` as (red, green, blue).
fn pixels(images: &Tensor, i: i64) -> Vec<[f64; 3]> {
    let at = |c: i64, p: i64| images.double_value(&[i, c, p / 3, p % 3]);
    (0..6).map(|p| [at(0, p), at(1, p), at(2, p)]).collect()
}

fn grey([r, g, b]: [f64; 3]) -> f64 {
    0.2989 * r + 0.587 * g + 0.114 * b
}

/// Hue in turns, saturation and value, by the textbook.
fn hsv([r, g, b]: [f64; 3]) -> [f64; 3] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let d = max - min;
    let sixths = if d == 0.0 {
        0.0
    } else if max == r {
        ((g - b) / d).rem_euclid(6.0)
    } else if max == g {
        (b - r) / d + 2.0
    } else {
        (r - g) / d + 4.0
    };
    [sixths / 6.0, d / max, max]
}

/// The factor by which each image moved away from `from(pixels)[pixel]`, the same for all pixels and channels.
fn factors(before: &Tensor, after: &Tensor, from: impl Fn(&[[f64; 3]]) -> Vec<f64>) -> [f64; 2] {
    [0, 1].map(|i| {
        let (before, after) = (pixels(before, i), pixels(after, i));
        let from = from(&before);
        let all: Vec<f64> = (0..6)
            .flat_map(|p| [0, 1, 2].map(|c| (p, c)))
            .filter(|&(p, c)| (before[p][c] - from[p]).abs() > 1e-3)
            .map(|(p, c)| (after[p][c] - from[p]) / (before[p][c] - from[p]))
            .collect();
        assert!(all.iter().all(|f| (f - all[0]).abs() < 1e-9), "{all:?}");
        all[0]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Each of the four changes is torchvision's, with a factor of each image's own.
    #[test]
    fn jitter_is_torchvisions(seed in any::<u64>()) {
        let images = colours(seed);
        let brighter = factors(&images, &jittered(&images, [0.3, 0.0, 0.0, 0.0], seed), |p| vec![0.0; p.len()]);
        let contrast = factors(&images, &jittered(&images, [0.0, 0.3, 0.0, 0.0], seed), |p| {
            vec![p.iter().map(|p| grey(*p)).sum::<f64>() / p.len() as f64; p.len()]
        });
        let saturation = factors(&images, &jittered(&images, [0.0, 0.0, 0.3, 0.0], seed), |p| {
            p.iter().map(|p| grey(*p)).collect()
        });
        for f in [brighter, contrast, saturation] {
            prop_assert!(f.iter().all(|f| (0.7..=1.3).contains(f)) && f[0] != f[1], "{f:?}");
        }
        let turned = jittered(&images, [0.0, 0.0, 0.0, 0.2], seed);
        let turns = [0, 1].map(|i| {
            let both: Vec<_> = pixels(&images, i).into_iter().map(hsv).zip(pixels(&turned, i).into_iter().map(hsv)).collect();
            let turns: Vec<f64> = both.iter().map(|(a, b)| (b[0] - a[0] + 0.5).rem_euclid(1.0) - 0.5).collect();
            for (a, b) in &both {
                assert!((a[1] - b[1]).abs() < 1e-9 && (a[2] - b[2]).abs() < 1e-9, "{a:?} {b:?}");
            }
            assert!(turns.iter().all(|t| (t - turns[0]).abs() < 1e-9), "{turns:?}");
            turns[0]
        });
        prop_assert!(turns.iter().all(|t| t.abs() <= 0.2) && turns[0] != turns[1]);
    }

    /// All at once stays in range, scales with white, is the same for the same seed; grey images have no hue.
    #[test]
    fn jitter_stays_in_range(seed in any::<u64>()) {
        let images = (colours(seed) - 0.3) * 2.5;
        let all = [0.4, 0.4, 0.4, 0.2];
        let out = jittered(&images, all, seed);
        prop_assert!(out.min().double_value(&[]) >= 0.0 && out.max().double_value(&[]) <= 1.0);
        let a = Augment { color_jitter: all, ..Augment::default() };
        let bytes = a.jitter(&(&images * 255.0), 255.0, &mut Streams::new(seed).at("j", 0));
        prop_assert!((bytes / 255.0 - &out).abs().max().double_value(&[]) < 1e-9);
        let one = images.narrow(1, 0, 1);
        prop_assert!(jittered(&one, [0.0, 0.0, 0.4, 0.2], seed) == one);
        prop_assert!(jittered(&images, [0.0; 4], seed) == images);
    }
}

#[test]
fn jitter_of_flat_colours_is_finite() {
    let flat = Tensor::from_slice(&[0.0, 0.5, 1.0])
        .view([3, 1, 1, 1])
        .repeat([1, 3, 2, 2]);
    let out = jittered(&flat, [0.4, 0.4, 0.4, 0.2], 1);
    assert!(out.isfinite().all().int64_value(&[]) == 1);
    let hue = jittered(&flat, [0.0, 0.0, 0.0, 0.5], 1);
    assert!(
        (hue - flat).abs().max().double_value(&[]) < 1e-12,
        "grey stays grey"
    );
}

proptest! {
    #[test]
    fn parts_are_the_batch_in_order(images in 1i64..20, n in 1i64..25) {
        let batch = Batch {
            images: Tensor::arange(images * 4, (Kind::Double, Device::Cpu)).view([images, 1, 2, 2]),
            labels: Tensor::arange(images, (Kind::Int64, Device::Cpu)),
            split: Some(Split::Train),
        };
        let parts = batch.parts(n);
        prop_assert!(parts.len() as i64 <= n);
        prop_assert!(parts.iter().all(|p| !p.is_empty() && p.split == batch.split));
        let sizes = || parts.iter().map(Batch::len);
        // Equal but for the last.
        prop_assert!(sizes().take(parts.len() - 1).all(|s| Some(s) == sizes().max()));
        let images: Vec<&Tensor> = parts.iter().map(|p| &p.images).collect();
        let labels: Vec<&Tensor> = parts.iter().map(|p| &p.labels).collect();
        prop_assert_eq!(Tensor::cat(&images, 0), batch.images);
        prop_assert_eq!(Tensor::cat(&labels, 0), batch.labels);
    }
}
