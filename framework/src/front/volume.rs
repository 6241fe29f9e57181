//! How much a set of points covers.

/// The volume of what is at least as good as `reference` and at most as good as one of the points, exactly. Every number is
/// better the higher it is; what is not above the reference in everything covers nothing.
///
/// Two numbers are sorted and swept. More are cut into slices along the last one, of which each is a problem with one number
/// fewer (Zitzler 2001; While et al. 2006, IEEE TEC 10, "HSO").
pub fn hypervolume<P: AsRef<[f64]>>(points: &[P], reference: &[f64]) -> f64 {
    let above = points.iter().map(AsRef::as_ref).filter_map(|point| {
        let sides = point.iter().zip(reference).map(|(x, r)| x - r);
        let sides: Vec<f64> = sides.collect();
        sides.iter().all(|side| *side > 0.0).then_some(sides)
    });
    let boxes: Vec<Vec<f64>> = above.collect();
    covered(&boxes.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

/// The volume of the union of boxes from zero.
fn covered(boxes: &[&[f64]]) -> f64 {
    let Some(along) = boxes.first().and_then(|sides| sides.len().checked_sub(1)) else {
        return 0.0;
    };
    let mut order: Vec<&[f64]> = boxes.to_vec();
    order.sort_by(|a, b| b[along].total_cmp(&a[along]));
    match along {
        0 => order[0][0],
        1 => {
            let (mut area, mut wide) = (0.0, 0.0);
            for (i, sides) in order.iter().enumerate() {
                wide = f64::max(wide, sides[0]);
                let next = order.get(i + 1).map_or(0.0, |sides| sides[1]);
                area += wide * (sides[1] - next);
            }
            area
        }
        _ => {
            let mut slices: Vec<&[f64]> = vec![];
            let mut volume = 0.0;
            for (i, sides) in order.iter().enumerate() {
                let slice = &sides[..along];
                // What lies within another slice changes nothing.
                if !slices
                    .iter()
                    .any(|s| s.iter().zip(slice).all(|(a, b)| a >= b))
                {
                    slices.retain(|s| !slice.iter().zip(*s).all(|(a, b)| a >= b));
                    slices.push(slice);
                }
                let next = order.get(i + 1).map_or(0.0, |sides| sides[along]);
                if sides[along] > next {
                    volume += covered(&slices) * (sides[along] - next);
                }
            }
            volume
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Of points with whole numbers the volume is a number of unit cubes, which are counted.
    fn counted(points: &[Vec<u8>], numbers: usize) -> f64 {
        const SIDE: usize = 6;
        let cubes = (0..SIDE.pow(numbers as u32)).filter(|cube| {
            let at = |m: usize| (cube / SIDE.pow(m as u32) % SIDE) as u8;
            points.iter().any(|p| (0..numbers).all(|m| at(m) < p[m]))
        });
        cubes.count() as f64
    }

    proptest! {
        #[test]
        fn volumes_are_counts_of_cubes(
            (numbers, points) in (1usize..5).prop_flat_map(|n| {
                (Just(n), prop::collection::vec(prop::collection::vec(0u8..7, n), 0..12))
            }),
            shift in -3i8..3,
        ) {
            let shift = f64::from(shift);
            let moved = points.iter().map(|p| p.iter().map(|x| f64::from(*x) + shift).collect());
            let moved: Vec<Vec<f64>> = moved.collect();
            prop_assert_eq!(hypervolume(&moved, &vec![shift; numbers]), counted(&points, numbers));
        }

        /// A dominated point adds nothing, and the volume of one point is a product.
        #[test]
        fn what_is_dominated_adds_nothing(point in prop::collection::vec(0.1f64..9.0, 2..6), by in 0.1f64..1.0) {
            let reference = vec![0.0; point.len()];
            let within: Vec<f64> = point.iter().map(|x| x * by).collect();
            let alone = hypervolume(&[&point], &reference);
            prop_assert!((alone / point.iter().product::<f64>() - 1.0).abs() < 1e-12);
            let both = hypervolume(&[&within, &point], &reference);
            prop_assert!((both / alone - 1.0).abs() < 1e-12);
        }
    }
}
