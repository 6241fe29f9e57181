//! What the two programs measured, side by side.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::failure::Failure;

/// The largest share of operator calls that nasfw may need.
const CALLS: f64 = 0.35;

/// The largest ratios, nasfw to the reference, that are aimed at.
#[derive(Debug, Clone, Copy)]
pub struct Goals {
    time: f64,
    memory: Option<f64>,
}

impl Goals {
    pub const fn new(time: f64, memory: Option<f64>) -> Self {
        Goals { time, memory }
    }
}

/// What one process measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    parameters: f64,
    /// Median of its steps.
    seconds: f64,
    /// Peak memory, and what the libraries took of it.
    peak: f64,
    libraries: f64,
    /// Operator calls a step.
    all: f64,
    leaves: f64,
}

impl Measured {
    /// Reads the figures of several processes, which stand below `place` (a JSON pointer) but for the parameters.
    pub fn all(processes: &[Value], place: &str) -> Result<Vec<Self>, Failure> {
        let read = |json: &Value| {
            let number = |key: String| {
                json.pointer(&key).and_then(Value::as_f64).ok_or_else(|| {
                    Failure::new(
                        format!("no number at `{key}` in what was measured:\n{json:#}"),
                        "this is a bug of nasfw; please report it",
                    )
                })
            };
            Ok(Measured {
                parameters: number("/parameters".into())?,
                seconds: number(format!("{place}/seconds"))?,
                peak: number(format!("{place}/peak_bytes"))?,
                libraries: number(format!("{place}/libraries_bytes"))?,
                all: number(format!("{place}/operators/all"))?,
                leaves: number(format!("{place}/operators/leaves"))?,
            })
        };
        processes.iter().map(read).collect()
    }
}

/// Medians over the processes, ratios and goals.
#[derive(Debug)]
pub struct Table(Vec<Line>);

#[derive(Debug)]
struct Line {
    name: &'static str,
    key: &'static str,
    decimals: usize,
    reference: f64,
    nasfw: f64,
    goal: Option<f64>,
}

impl Line {
    fn ratio(&self) -> f64 {
        self.nasfw / self.reference
    }
}

impl Table {
    /// # Errors
    /// Networks with different numbers of parameters.
    pub fn new(reference: &[Measured], nasfw: &[Measured], goals: &Goals) -> Result<Self, Failure> {
        let line = |name, key, decimals, goal, value: &dyn Fn(&Measured) -> f64| Line {
            name,
            key,
            decimals,
            reference: median(reference.iter().map(value).collect()),
            nasfw: median(nasfw.iter().map(value).collect()),
            goal,
        };
        let (memory, calls) = (goals.memory, Some(CALLS));
        let parameters = line("parameters", "parameters", 0, None, &|m| m.parameters);
        if parameters.reference != parameters.nasfw {
            return Err(Failure::new(
                format!(
                    "the reference has {} parameters, nasfw {}",
                    parameters.reference, parameters.nasfw
                ),
                "the two networks must be the same: see benches/peer/README.md",
            ));
        }
        Ok(Table(vec![
            parameters,
            line("seconds a step", "seconds", 3, Some(goals.time), &|m| {
                m.seconds
            }),
            line("peak memory, GB", "peak", 2, memory, &|m| m.peak / 1e9),
            line(
                "… without libraries",
                "peak_without_libraries",
                2,
                memory,
                &|m| (m.peak - m.libraries) / 1e9,
            ),
            line("operator calls", "operators", 0, calls, &|m| m.all),
            line(
                "… that call no other",
                "operator_leaves",
                0,
                calls,
                &|m| m.leaves,
            ),
        ]))
    }

    /// Key, medians, ratio and goal of every line.
    pub fn json(&self) -> Value {
        let lines = self.0.iter().map(|line| {
            let facts = json!({
                "reference": line.reference, "nasfw": line.nasfw,
                "ratio": line.ratio(), "goal": line.goal,
            });
            (line.key.to_owned(), facts)
        });
        Value::Object(Map::from_iter(lines))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:22}{:>12}{:>12}{:>8}  goal",
            "", "reference", "nasfw", "ratio"
        )?;
        for line in &self.0 {
            let d = line.decimals;
            write!(
                f,
                "{:22}{:>12.d$}{:>12.d$}{:>8.3}",
                line.name,
                line.reference,
                line.nasfw,
                line.ratio()
            )?;
            match line.goal {
                Some(goal) if line.ratio() <= goal => writeln!(f, "  ≤ {goal:.2}, met")?,
                Some(goal) => writeln!(f, "  ≤ {goal:.2}, MISSED")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn reference(seconds: f64) -> Value {
        json!({
            "space": "darts", "parameters": 1_930_618, "samples": [seconds], "seconds": seconds,
            "peak_bytes": 10_500_000_000_u64, "libraries_bytes": 500_000_000,
            "operators": {"all": 70_000, "leaves": 40_000},
        })
    }

    fn nasfw(seconds: f64) -> Value {
        json!({
            "parameters": 1_930_618,
            "plain": {
                "seconds": seconds, "samples": [seconds],
                "peak_bytes": 5_250_000_000_u64, "libraries_bytes": 250_000_000,
                "operators": {"all": 7_000, "leaves": 20_000},
            },
        })
    }

    fn table() -> Table {
        let reference = Measured::all(&[reference(9.0), reference(8.0), reference(11.0)], "");
        let nasfw = Measured::all(&[nasfw(2.0), nasfw(4.0)], "/plain");
        let goals = Goals::new(0.4, Some(0.5));
        Table::new(&reference.unwrap(), &nasfw.unwrap(), &goals).unwrap()
    }

    #[test]
    fn medians_ratios_and_goals_stand_side_by_side() {
        let expected = "
                         reference       nasfw   ratio  goal
parameters                 1930618     1930618   1.000
seconds a step               9.000       3.000   0.333  ≤ 0.40, met
peak memory, GB              10.50        5.25   0.500  ≤ 0.50, met
… without libraries          10.00        5.00   0.500  ≤ 0.50, met
operator calls               70000        7000   0.100  ≤ 0.35, met
… that call no other         40000       20000   0.500  ≤ 0.35, MISSED
";
        assert_eq!(format!("\n{}", table()), expected);
        let json = table().json();
        assert_eq!(json["seconds"]["reference"], 9.0);
        assert_eq!(json["operator_leaves"]["ratio"], 0.5);
        assert_eq!(json["parameters"]["goal"], Value::Null);
    }

    #[test]
    fn without_a_goal_nothing_is_met_or_missed() {
        let m = Measured::all(&[reference(1.0)], "").unwrap();
        let table = Table::new(&m, &m, &Goals::new(0.6, None))
            .unwrap()
            .to_string();
        let peak = table.lines().find(|l| l.starts_with("peak")).unwrap();
        assert!(peak.ends_with("1.000"), "{table}");
    }

    #[test]
    fn other_networks_are_not_compared() {
        let mut other = nasfw(1.0);
        other["parameters"] = 1_930_330.into();
        let reference = Measured::all(&[reference(1.0)], "").unwrap();
        let nasfw = Measured::all(&[other], "/plain").unwrap();
        let failure = Table::new(&reference, &nasfw, &Goals::new(0.4, None)).unwrap_err();
        assert!(
            failure
                .message
                .contains("1930618 parameters, nasfw 1930330"),
            "{failure}"
        );
    }

    #[test]
    fn a_missing_figure_is_named() {
        let mut half = nasfw(1.0);
        half["plain"]["operators"] = json!({"all": 3});
        let failure = Measured::all(&[half], "/plain").unwrap_err().to_string();
        assert!(failure.contains("`/plain/operators/leaves`"), "{failure}");
    }

    #[test]
    fn medians_of_even_and_odd_numbers() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
