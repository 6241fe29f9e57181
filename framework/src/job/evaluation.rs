//! What a network is worth, as a whole and class by class.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arch::Genotype;
use crate::events::Meter;
use crate::inputs::Inputs;
use crate::network::Size;

/// The most classes that a whole matrix of confusions is kept of.
const MOST_CLASSES: usize = 2_000;

/// What was measured on the test images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Epochs done at the checkpoint.
    pub epoch: u64,
    /// The architecture.
    pub genotype: Genotype,
    /// Loss and accuracy.
    pub test: Meter,
    /// Size of the network, where the weights are those of a network alone and not a supernet's.
    pub cost: Option<Size>,
    /// Every class, in the order of the network's outputs; none where a space's outputs are no classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassFigures>,
    /// How many images of a class (row) were taken for which one (column), both in the order of `classes`; none of more
    /// than 2,000 classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Vec<u64>>,
    /// Which classes were taken for which others, the most frequent mistake first.
    #[serde(skip)]
    pub mistakes: Vec<Mistake>,
}

/// What becomes of the test images of a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassFigures {
    /// Its name; its number, where it has none.
    pub class: String,
    /// How many there are.
    pub images: u64,
    /// Fraction of them that was classified correctly; none without images.
    pub accuracy: Option<f64>,
}

/// Images of a class that were taken for another one; classes by their places in [`Evaluation::classes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mistake {
    /// What they are.
    pub class: usize,
    /// What they were taken for.
    pub taken_for: usize,
    /// How many there are.
    pub images: u64,
}

/// How many images of a class were taken for which one.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<(usize, usize), u64>);

impl Counts {
    /// Counts images by what they are and what they were taken for.
    pub(super) fn add(&mut self, are: &[i64], taken_for: &[i64]) {
        for (class, taken_for) in are.iter().zip(taken_for) {
            *self
                .0
                .entry((*class as usize, *taken_for as usize))
                .or_default() += 1;
        }
    }

    /// Every class, in the order of the network's outputs; none where nothing was counted.
    pub(super) fn classes(&self, inputs: &Inputs) -> Vec<ClassFigures> {
        let classes = match self.0.is_empty() {
            true => 0,
            false => inputs.task.classes as usize,
        };
        let mut figures: Vec<(u64, u64)> = vec![(0, 0); classes];
        for ((class, taken_for), images) in &self.0 {
            if let Some((all, right)) = figures.get_mut(*class) {
                *all += images;
                *right += if class == taken_for { *images } else { 0 };
            }
        }
        let figures = figures.into_iter().enumerate();
        figures
            .map(|(i, (images, right))| ClassFigures {
                class: inputs.class(i).into_owned(),
                images,
                accuracy: (images > 0).then(|| right as f64 / images as f64),
            })
            .collect()
    }

    /// As [`Evaluation::confusion`], of so many classes.
    pub(super) fn matrix(&self, classes: usize) -> Vec<Vec<u64>> {
        if classes > MOST_CLASSES {
            return vec![];
        }
        let count = |pair| self.0.get(&pair).copied().unwrap_or_default();
        (0..classes)
            .map(|class| (0..classes).map(|other| count((class, other))).collect())
            .collect()
    }

    /// As [`Evaluation::mistakes`].
    pub(super) fn mistakes(&self) -> Vec<Mistake> {
        let wrong = self.0.iter().filter(|((class, other), _)| class != other);
        let mut all: Vec<Mistake> = wrong
            .map(|((class, taken_for), images)| Mistake {
                class: *class,
                taken_for: *taken_for,
                images: *images,
            })
            .collect();
        // Equal ones stay in the order of the classes.
        all.sort_by_key(|mistake| Reverse(mistake.images));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Task;
    use crate::inputs::Normalisation;

    #[test]
    fn images_are_counted_by_class() {
        let inputs = |classes: i64| Inputs {
            task: Task {
                channels: 1,
                height: 1,
                width: 1,
                classes,
            },
            crop: None,
            normalisation: Normalisation {
                mean: vec![0.0],
                std: vec![1.0],
                classes: vec!["cat".into(), "dog".into()],
            },
        };
        let mut counts = Counts::default();
        assert!(counts.classes(&inputs(4)).is_empty() && counts.mistakes().is_empty());
        // Four cats, of which two are taken for dogs and one for the third class; two dogs, a third one without a name.
        counts.add(&[0, 0, 1, 0], &[0, 1, 1, 2]);
        counts.add(&[0, 1, 2], &[1, 0, 2]);
        let classes = counts.classes(&inputs(4));
        let told: Vec<_> = (classes.iter())
            .map(|c| (c.class.as_str(), c.images, c.accuracy))
            .collect();
        let expected = [
            ("cat", 4, Some(0.25)),
            ("dog", 2, Some(0.5)),
            ("2", 1, Some(1.0)),
            ("3", 0, None),
        ];
        assert_eq!(told, expected);
        let rows = [[1, 2, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0; 4]];
        assert_eq!(counts.matrix(4), rows.map(Vec::from));
        assert!(counts.matrix(MOST_CLASSES + 1).is_empty());
        let mistakes: Vec<_> = (counts.mistakes().into_iter())
            .map(|m| (m.class, m.taken_for, m.images))
            .collect();
        assert_eq!(mistakes, [(0, 1, 2), (0, 2, 1), (1, 0, 1)]);
    }
}
