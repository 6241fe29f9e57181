//! Batches of a source: what they hold never depends on what was decoded ahead.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use rand::RngExt;

use super::*;
use crate::rng::Rng;

/// Image i is the two bytes of i and a byte that only the randomness of the view decides.
#[derive(Debug, Default)]
struct Numbers {
    decoded: AtomicUsize,
    bad: Option<usize>,
    deadly: Option<usize>,
}

impl ImageSource for Numbers {
    fn decode(&self, index: usize, random: Option<&mut Rng>, image: &mut [u8]) -> Result<()> {
        self.decoded.fetch_add(1, Ordering::Relaxed);
        assert_ne!(self.deadly, Some(index));
        if self.bad == Some(index) {
            return Err(Error::Data {
                path: format!("{index}.jpg").into(),
                problem: "bad".into(),
                help: String::new(),
            });
        }
        image[..2].copy_from_slice(&(index as u16).to_le_bytes());
        image[2] = random.map_or(0, |rng| rng.random());
        Ok(())
    }

    fn checksum(&self) -> String {
        String::new()
    }
}

fn batches(source: Numbers, images: usize, split: Option<usize>) -> (Batches, Arc<Numbers>) {
    let source = Arc::new(source);
    let part = |images: usize| Part {
        images: Images::Source(source.clone()),
        labels: (0..images).map(|i| (i % 1000) as u16).collect(),
    };
    let data = ImageData {
        task: Task {
            channels: 3,
            height: 1,
            width: 1,
            classes: 1000,
        },
        train: part(images),
        test: part(5),
        split,
        mean: vec![0.0; 3],
        std: vec![1.0 / 255.0; 3],
        classes: vec![],
    };
    let data = data.check("numbers").unwrap();
    let batches = Batches::new(&data, Streams::new(3), Kind::Double, Device::Cpu);
    (batches.unwrap(), source)
}

/// Number, random byte and label of every image of a batch.
fn content(batch: &Batch) -> Vec<(i64, i64, i64)> {
    (0..batch.len())
        .map(|i| {
            let byte = |c: i64| batch.images.double_value(&[i, c, 0, 0]) as i64;
            (
                byte(0) + 256 * byte(1),
                byte(2),
                batch.labels.int64_value(&[i]),
            )
        })
        .collect()
}

fn draw(split: Split, pass: u64, index: u64, batch_size: usize) -> Draw {
    Draw {
        split,
        order: Order::Shuffled,
        pass,
        index,
        batch_size,
    }
}

#[test]
fn a_pass_has_every_image_once_with_its_own_label() {
    let (mut b, _) = batches(Numbers::default(), 1500, Some(900));
    for (split, first, len) in [
        (Split::Full, 0, 1500),
        (Split::Train, 0, 900),
        (Split::Val, 900, 600),
    ] {
        let mut seen: Vec<_> = (0..b.per_pass(split, 128))
            .flat_map(|i| content(&b.batch(draw(split, 1, i, 128), Augment::default()).unwrap()))
            .collect();
        assert!(seen.iter().all(|(image, _, label)| image % 1000 == *label));
        let bytes: std::collections::HashSet<_> = seen.iter().map(|(_, byte, _)| byte).collect();
        assert!(bytes.len() > 200, "every image has randomness of its own");
        assert!(!seen.is_sorted());
        seen.sort_unstable();
        assert!(seen.iter().map(|(image, ..)| *image).eq(first..first + len));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever was drawn and foreseen before (other splits, passes, sizes, jumps as after a rollback), a batch holds
    /// what a fresh process would draw.
    #[test]
    fn a_batch_does_not_depend_on_those_before(
        draws in prop::collection::vec((0usize..3, 0u64..3, 0u64..4, 2usize..5, any::<bool>(), 1u64..4), 1..6),
    ) {
        let (mut b, _) = batches(Numbers::default(), 17, None);
        for (split, pass, index, size, fresh, run) in draws {
            for index in index..index + run {
                let order = if fresh { Order::Fresh } else { Order::Shuffled };
                let split = [Split::Full, Split::Train, Split::Val][split];
                let draw = Draw { order, ..draw(split, pass, index, size) };
                let here = content(&b.batch(draw, Augment::default()).unwrap());
                let (mut other, _) = batches(Numbers::default(), 17, None);
                prop_assert_eq!(here, content(&other.batch(draw, Augment::default()).unwrap()));
            }
        }
    }
}

#[test]
fn the_next_batches_are_decoded_ahead_and_only_once() {
    let (mut b, source) = batches(Numbers::default(), 40, None);
    for index in 0..10 {
        b.batch(draw(Split::Full, 0, index, 4), Augment::default())
            .unwrap();
    }
    b.ahead
        .values()
        .flat_map(|a| &a.0)
        .for_each(|(_, decoding)| drop(decoding.recv()));
    assert_eq!(source.decoded.load(Ordering::Relaxed), 4 * (10 + AHEAD));
}

#[test]
fn a_bad_image_fails_its_own_batch_alone() {
    let (mut good, _) = batches(Numbers::default(), 20, None);
    let bad = 7;
    let (mut b, _) = batches(
        Numbers {
            bad: Some(bad),
            ..Numbers::default()
        },
        20,
        None,
    );
    let mut failed = 0;
    for index in 0..5 {
        let draw = draw(Split::Full, 0, index, 4);
        let expected = content(&good.batch(draw, Augment::default()).unwrap());
        match b.batch(draw, Augment::default()) {
            Ok(batch) => assert_eq!(content(&batch), expected),
            Err(error) => {
                assert!(expected.iter().any(|(image, ..)| *image == bad as i64));
                assert!(error.to_string().contains("7.jpg"), "{error}");
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 1);
}

#[test]
fn a_panic_while_decoding_is_an_error() {
    let deadly = Numbers {
        deadly: Some(0),
        ..Numbers::default()
    };
    let (mut b, _) = batches(deadly, 4, None);
    let error = b
        .batch(draw(Split::Full, 0, 0, 4), Augment::default())
        .unwrap_err();
    assert!(error.to_string().contains("died"), "{error}");
}

#[test]
fn evaluation_goes_in_file_order_without_randomness_and_stops_at_its_limit() {
    let (b, source) = batches(Numbers::default(), 20, Some(12));
    let all = |batches: &mut dyn Iterator<Item = Result<Batch>>| -> Vec<_> {
        batches.flat_map(|b| content(&b.unwrap())).collect()
    };
    let expected = |range: std::ops::Range<i64>| range.map(|i| (i, 0, i)).collect::<Vec<_>>();
    assert_eq!(all(&mut b.test(2, usize::MAX)), expected(0..5));
    assert_eq!(
        all(&mut b.plain(Split::Val, 3, usize::MAX)),
        expected(12..20)
    );
    let before = source.decoded.load(Ordering::Relaxed);
    assert_eq!(all(&mut b.plain(Split::Train, 3, 2)), expected(0..6));
    assert_eq!(source.decoded.load(Ordering::Relaxed), before + 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Where one image can't be alone none is, whatever the sizes, and every image still comes once a pass; where it can,
    /// batches are as they always were.
    #[test]
    fn an_image_is_alone_only_where_it_can_be(images in 4usize..60, part in 1usize..3, size in 2usize..20, lone in any::<bool>()) {
        let (mut b, _) = batches(Numbers::default(), images, Some(images / part));
        b.lone = lone;
        for split in [Split::Full, Split::Train, Split::Val] {
            let len = b.len(split);
            let lengths: Vec<usize> = (0..b.per_pass(split, size)).map(|i| b.rows(draw(split, 0, i, size)).len()).collect();
            prop_assert_eq!(lengths.iter().sum::<usize>(), len);
            let usual: Vec<usize> = (0..len).step_by(size).map(|at| size.min(len - at)).collect();
            if lone || usual.last() != Some(&1) || len == 1 {
                prop_assert_eq!(&lengths, &usual);
            } else {
                prop_assert!(lengths.iter().all(|n| *n > 1 && *n <= size + 1), "{:?}", lengths);
            }
            prop_assert_eq!(b.require(&[split]).is_ok(), len >= if lone { 1 } else { 2 });
            let plain: usize = b.plain(split, size, usize::MAX).map(|b| b.unwrap().len() as usize).sum();
            prop_assert_eq!(plain, len);
        }
    }
}
