//! Fewer images of a part, the same number of each class.

use std::collections::HashMap;

use nasfw_framework::dataset::Part;

/// The first `per_class` images of each class, in their order; 0 keeps all. For images in memory.
pub fn first_of_each_class(part: Part, per_class: usize) -> Part {
    if per_class == 0 || part.is_empty() {
        return part;
    }
    let all = part.images.bytes();
    let bytes = all.len() / part.len();
    let mut taken = HashMap::new();
    let (mut images, mut labels) = (vec![], vec![]);
    for (&label, image) in part.labels.iter().zip(all.chunks_exact(bytes)) {
        let taken = taken.entry(label).or_insert(0);
        if *taken < per_class {
            *taken += 1;
            labels.push(label);
            images.extend_from_slice(image);
        }
    }
    Part {
        images: images.into(),
        labels,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_first_of_each_class_stay_in_order() {
        let part = Part {
            labels: vec![2, 0, 999, 2, 0, 1, 2],
            images: (0..14).collect::<Vec<_>>().into(),
        };
        for all in [0, 9] {
            let kept = first_of_each_class(part.clone(), all);
            assert_eq!(kept.labels, part.labels);
            assert_eq!(kept.images.bytes(), part.images.bytes());
        }
        let kept = first_of_each_class(part, 1);
        assert_eq!(kept.labels, [2, 0, 999, 1]);
        assert_eq!(kept.images.bytes(), [0, 1, 2, 3, 4, 5, 10, 11]);
    }
}
