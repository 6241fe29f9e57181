//! Anytime curves: what a search would have answered had it been stopped.

/// A value that changes at some points and holds in between.
#[derive(Debug, Clone, PartialEq)]
pub struct StepFunction {
    /// Position and the value from there on, by position; the first value also holds before.
    points: Vec<(f64, f64)>,
}

impl StepFunction {
    /// Sorts points by position; of several at one position the last counts. None without points, and none where a
    /// number is not finite.
    pub fn new(mut points: Vec<(f64, f64)>) -> Option<Self> {
        let finite = points.iter().all(|(x, y)| x.is_finite() && y.is_finite());
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        (finite && !points.is_empty()).then_some(Self { points })
    }

    /// The value at a position.
    pub fn at(&self, x: f64) -> f64 {
        let next = self.points.partition_point(|p| p.0 <= x);
        self.points[next.saturating_sub(1)].1
    }

    /// Mean over `[0, budget]`, `budget` above 0: the area under the curve divided by the budget.
    pub fn mean(&self, budget: f64) -> f64 {
        let within = self.points.iter().filter(|(x, _)| 0.0 < *x && *x < budget);
        let mut area = 0.0;
        let (mut from, mut value) = (0.0, self.at(0.0));
        for (x, y) in within {
            area += value * (x - from);
            (from, value) = (*x, *y);
        }
        (area + value * (budget - from)) / budget
    }
}
