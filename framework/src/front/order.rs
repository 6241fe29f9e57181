//! Who beats whom. Points are lists of numbers of one length, each of which is better the higher it is.

use std::cmp::Ordering;

/// Whether `a` is at least as good as `b` in everything, and better in something.
pub fn dominates(a: &[f64], b: &[f64]) -> bool {
    let pairs = || a.iter().zip(b);
    pairs().all(|(x, y)| x >= y) && pairs().any(|(x, y)| x > y)
}

/// Indices of the points that no other dominates, the best in the first number first. Equal points are all there.
pub fn non_dominated<P: AsRef<[f64]>>(points: &[P]) -> Vec<usize> {
    let at = |i: usize| points[i].as_ref();
    let mut order: Vec<usize> = (0..points.len()).collect();
    // Who dominates a point comes before it in this order.
    order.sort_by(|&i, &j| lexicographic(at(j), at(i)).then(i.cmp(&j)));
    let mut kept: Vec<usize> = vec![];
    for i in order {
        if !kept.iter().any(|&k| dominates(at(k), at(i))) {
            kept.push(i);
        }
    }
    kept
}

fn lexicographic(a: &[f64], b: &[f64]) -> Ordering {
    let pairs = a.iter().zip(b).map(|(x, y)| x.total_cmp(y));
    pairs.fold(Ordering::Equal, Ordering::then)
}

/// Fast non-dominated sort (Deb et al. 2002, IEEE TEC 6, section III A): the number of the front that each point is on.
/// 0 are the points that none dominates, 1 those that none but these dominates, and so on.
pub fn ranks<P: AsRef<[f64]>>(points: &[P]) -> Vec<usize> {
    let n = points.len();
    let mut worse: Vec<Vec<usize>> = vec![vec![]; n];
    let mut better = vec![0usize; n];
    for i in 0..n {
        for j in 0..n {
            if dominates(points[i].as_ref(), points[j].as_ref()) {
                worse[i].push(j);
                better[j] += 1;
            }
        }
    }
    let mut ranks = vec![0; n];
    let mut front: Vec<usize> = (0..n).filter(|&i| better[i] == 0).collect();
    let mut rank = 0;
    while !front.is_empty() {
        let mut next = vec![];
        for &i in &front {
            ranks[i] = rank;
            for &j in &worse[i] {
                better[j] -= 1;
                if better[j] == 0 {
                    next.push(j);
                }
            }
        }
        front = next;
        rank += 1;
    }
    ranks
}

/// Crowding distances of the points of one front (Deb et al. 2002, section III B): of every number the distance between the
/// neighbours on both sides, as a fraction of the front's range, summed. Infinite at both ends of a number's range; what does
/// not vary adds nothing.
pub fn crowding<P: AsRef<[f64]>>(points: &[P]) -> Vec<f64> {
    let mut distances = vec![0.0; points.len()];
    let numbers = points.first().map_or(0, |p| p.as_ref().len());
    for m in 0..numbers {
        let at = |i: usize| points[i].as_ref()[m];
        let mut order: Vec<usize> = (0..points.len()).collect();
        order.sort_by(|&i, &j| at(i).total_cmp(&at(j)));
        let (first, last) = (order[0], order[order.len() - 1]);
        let range = at(last) - at(first);
        if range > 0.0 {
            distances[first] = f64::INFINITY;
            distances[last] = f64::INFINITY;
            for around in order.windows(3) {
                distances[around[1]] += (at(around[2]) - at(around[0])) / range;
            }
        }
    }
    distances
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Points of a coarse grid, so that many are equal in something.
    fn points() -> impl Strategy<Value = Vec<Vec<f64>>> {
        (1usize..4).prop_flat_map(|numbers| {
            let point = prop::collection::vec((0u8..6).prop_map(f64::from), numbers);
            prop::collection::vec(point, 0..30)
        })
    }

    fn unbeaten(all: &[Vec<f64>], among: &[usize]) -> Vec<usize> {
        let beaten = |&i: &usize| {
            among.iter().any(|&j| {
                let (mut never_worse, mut somewhere_better) = (true, false);
                for (own, other) in all[i].iter().zip(&all[j]) {
                    never_worse &= other >= own;
                    somewhere_better |= other > own;
                }
                never_worse && somewhere_better
            })
        };
        among.iter().copied().filter(|i| !beaten(i)).collect()
    }

    proptest! {
        /// Fronts are peeled off one after the other, by comparing all with all.
        #[test]
        fn fronts_are_what_peeling_gives(points in points()) {
            let found = ranks(&points);
            let mut left: Vec<usize> = (0..points.len()).collect();
            let mut rank = 0;
            while !left.is_empty() {
                let front = unbeaten(&points, &left);
                prop_assert!(!front.is_empty());
                left.retain(|i| !front.contains(i));
                prop_assert!(front.iter().all(|&i| found[i] == rank), "{rank} {front:?} {found:?}");
                rank += 1;
            }
            let mut first = non_dominated(&points);
            prop_assert!(first.windows(2).all(|w| points[w[0]][0] >= points[w[1]][0]));
            first.sort_unstable();
            let expected: Vec<usize> = (0..points.len()).filter(|&i| found[i] == 0).collect();
            prop_assert_eq!(first, expected);
        }

        /// On a front of two numbers that are all different, the distance is half the way around the box of the neighbours.
        #[test]
        fn distances_are_sides_of_boxes(steps in prop::collection::vec((1u8..9, 1u8..9), 3..12)) {
            let (mut x, mut y) = (0.0, 0.0);
            let points: Vec<Vec<f64>> = steps.iter().map(|(a, b)| {
                x += f64::from(*a);
                y -= f64::from(*b);
                vec![x, y]
            }).collect();
            let found = crowding(&points);
            let last = points.len() - 1;
            let wide = points[last][0] - points[0][0];
            let high = points[0][1] - points[last][1];
            for i in 1..last {
                let of = (points[i + 1][0] - points[i - 1][0]) / wide + (points[i - 1][1] - points[i + 1][1]) / high;
                prop_assert!((found[i] - of).abs() < 1e-12);
            }
            prop_assert_eq!((found[0], found[last]), (f64::INFINITY, f64::INFINITY));
            // Inner distances add up to twice the range of each number, but for the steps at both ends.
            let ends = (points[1][0] - points[0][0] + points[last][0] - points[last - 1][0]) / wide
                + (points[0][1] - points[1][1] + points[last - 1][1] - points[last][1]) / high;
            prop_assert!((found[1..last].iter().sum::<f64>() - (4.0 - ends)).abs() < 1e-9);
        }
    }

    #[test]
    fn what_does_not_vary_adds_nothing() {
        assert_eq!(crowding(&[[1.0, 2.0], [1.0, 2.0]]), [0.0, 0.0]);
        assert_eq!(crowding::<[f64; 2]>(&[]), [0.0; 0]);
    }
}
