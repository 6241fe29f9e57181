//! The halves of the training images: one for the weights, one for the architecture.

use std::collections::BTreeMap;

/// The weights' half and the architecture's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Halves {
    /// How many images belong to the weights.
    pub weights: usize,
    /// The images of the weights, then those of the architecture, each in file order; none where that is file order
    /// itself.
    pub drawn: Option<Vec<i64>>,
}

impl Halves {
    /// The first and the second half in file order, unless one of them would have less than an eighth of the images of
    /// a class: a file in the order of its classes gives halves that have no class in common. Then each half gets
    /// half of every class, the odd image going to the weights.
    pub fn of(labels: &[u16]) -> Self {
        let middle = labels.len() / 2;
        // Images of each class, and those of them in the first half.
        let mut counts: BTreeMap<u16, (usize, usize)> = BTreeMap::new();
        for (i, label) in labels.iter().enumerate() {
            let (all, first) = counts.entry(*label).or_default();
            *all += 1;
            *first += usize::from(i < middle);
        }
        let lacking = counts
            .values()
            .filter(|&&(all, first)| all > 1 && 8 * first.min(all - first) < all)
            .count();
        if lacking == 0 {
            return Self {
                weights: middle,
                drawn: None,
            };
        }
        tracing::info!(
            "halves of the training images in file order would have few or no images of {lacking} of {} classes, so each \
             half gets half of every class",
            counts.len()
        );
        let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
        let (weights, arch): (Vec<i64>, Vec<i64>) = (0..labels.len() as i64).partition(|&i| {
            let label = labels[i as usize];
            let seen = seen.entry(label).or_default();
            *seen += 1;
            2 * *seen <= counts[&label].0 + 1
        });
        Self {
            weights: weights.len(),
            drawn: Some([weights, arch].concat()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the order of the labels: every image is in one half, and each half has images of every class, at
        /// least an eighth of them.
        #[test]
        fn no_half_lacks_a_class(labels in prop::collection::vec(0u16..6, 2..200), sorted in any::<bool>()) {
            let mut labels = labels;
            if sorted {
                labels.sort_unstable();
            }
            let Halves { weights, drawn } = Halves::of(&labels);
            let order = drawn.unwrap_or_else(|| (0..labels.len() as i64).collect());
            let mut all = order.clone();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..labels.len() as i64));
            let (first, second) = order.split_at(weights);
            prop_assert!([first, second].iter().all(|half| half.is_sorted()));
            let of = |half: &[i64], class: u16| half.iter().filter(|&&i| labels[i as usize] == class).count();
            for class in 0..6 {
                let (a, b) = (of(first, class), of(second, class));
                prop_assert!(a + b < 2 || 8 * a.min(b) >= a + b, "class {class}: {a} and {b}");
            }
        }
    }

    #[test]
    fn files_in_mixed_order_are_cut_in_the_middle() {
        let mixed: Vec<u16> = (0..101).map(|i| i * 7 % 10).collect();
        let halves = Halves::of(&mixed);
        assert_eq!((halves.weights, halves.drawn), (50, None));
        // A class of one image can only be in one half.
        assert_eq!(Halves::of(&[0, 1, 2, 3]).drawn, None);
        let sorted = Halves::of(&[0, 0, 0, 1, 1, 2, 2]);
        assert_eq!(
            (sorted.weights, sorted.drawn),
            (4, Some(vec![0, 1, 3, 5, 2, 4, 6]))
        );
    }
}
