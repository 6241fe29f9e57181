//! Fewer images of a part, the same number of each class.

use nasfw_framework::dataset::Part;

/// The first `per_class` images of each class, in their order; 0 keeps all.
pub fn first_of_each_class(part: Part, per_class: usize) -> Part {
    if per_class == 0 || part.is_empty() {
        return part;
    }
    let bytes = part.images.len() / part.len();
    let mut taken = [0; 256];
    let mut kept = Part::default();
    for (&label, image) in part.labels.iter().zip(part.images.chunks_exact(bytes)) {
        let taken = &mut taken[usize::from(label)];
        if *taken < per_class {
            *taken += 1;
            kept.labels.push(label);
            kept.images.extend_from_slice(image);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_first_of_each_class_stay_in_order() {
        let part = Part {
            labels: vec![2, 0, 2, 2, 0, 1],
            images: (0..12).collect(),
        };
        assert_eq!(first_of_each_class(part.clone(), 0), part);
        assert_eq!(first_of_each_class(part.clone(), 9), part);
        let kept = first_of_each_class(part, 1);
        assert_eq!(kept.labels, [2, 0, 1]);
        assert_eq!(kept.images, [0, 1, 2, 3, 10, 11]);
    }
}
