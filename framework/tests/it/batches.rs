//! Batches and augmentation against plain loops over pixels.

use std::collections::HashSet;

use nasfw_framework::batches::Augment;
use nasfw_framework::rng::Streams;
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
