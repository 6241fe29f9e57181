//! Range checks that collect every problem instead of stopping at the first.

use serde_json::{Number, Value};

use super::problem::{ConfigError, Problem};

/// No setting counts further: sums and products of two counts fit in 64 bits.
const MOST: u64 = 1_000_000_000;
/// Last parts of keys of whole numbers that are no counts.
const UNBOUNDED: [&str; 2] = ["seed", "memory"];

fn is_beyond(n: &Number) -> bool {
    let most = MOST.cast_signed();
    match n.as_i64() {
        Some(n) => !(-most..=most).contains(&n),
        None => n.is_u64(),
    }
}

/// Collects what is wrong with typed settings.
#[derive(Debug, Default)]
pub struct Validator {
    problems: Vec<Problem>,
}

impl Validator {
    /// Records a problem of `key`, a dotted path such as `strategy.lr`.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            key: key.into(),
            message: message.into(),
            hint: None,
            origin: None,
        });
    }

    /// Requires `value ≥ min` (and not NaN).
    pub fn at_least<T: PartialOrd + std::fmt::Display>(&mut self, key: &str, value: T, min: T) {
        let inside = value >= min;
        if !inside {
            self.problem(
                key,
                format!("{value} is out of range, it must be at least {min}"),
            );
        }
    }

    /// Requires that no whole number of a setting is beyond [`MOST`], whatever it counts, but for seeds and bytes
    /// ([`UNBOUNDED`]).
    pub(crate) fn counts(&mut self, key: &str, value: &Value) {
        let last = key.rsplit('.').next().unwrap_or(key);
        if UNBOUNDED.contains(&last) {
            return;
        }
        match value {
            Value::Number(n) if is_beyond(n) => self.problem(
                key,
                format!("{n} is out of range, no count can be beyond {MOST}"),
            ),
            Value::Array(list) => {
                for (i, value) in list.iter().enumerate() {
                    self.counts(&format!("{key}[{i}]"), value);
                }
            }
            _ => {}
        }
    }

    /// Requires `min ≤ value ≤ max`.
    pub fn range<T: PartialOrd + std::fmt::Display>(
        &mut self,
        key: &str,
        value: T,
        min: T,
        max: T,
    ) {
        let inside = value >= min && value <= max;
        if !inside {
            self.problem(
                key,
                format!("{value} is out of range, it must be from {min} to {max}"),
            );
        }
    }

    /// Requires `min ≤ value < max`.
    pub fn below<T: PartialOrd + std::fmt::Display>(
        &mut self,
        key: &str,
        value: T,
        min: T,
        max: T,
    ) {
        let inside = value >= min && value < max;
        if !inside {
            self.problem(
                key,
                format!("{value} is out of range, it must be at least {min} and below {max}"),
            );
        }
    }

    /// Checks the settings of the strategy that a wrapper wraps: what `check` says of `strategy.…` is said of
    /// `strategy.base.…`.
    pub fn base(&mut self, check: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        check(&mut inner);
        self.take_in(inner.problems, "strategy.", "strategy.base.");
    }

    /// Takes in what was found of settings that are kept inside others: what is said of `from…` is said of `to…`.
    pub fn take_in(&mut self, problems: Vec<Problem>, from: &str, to: &str) {
        self.problems.extend(problems.into_iter().map(|p| Problem {
            key: match p.key.strip_prefix(from) {
                Some(rest) => format!("{to}{rest}").trim_end_matches('.').to_owned(),
                None => p.key,
            },
            ..p
        }));
    }

    /// All problems as one error.
    ///
    /// # Errors
    /// Where there are any.
    pub fn into_result(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(ConfigError {
            problems: self.problems,
            help: None,
        })
    }

    /// What was collected.
    pub fn into_problems(self) -> Vec<Problem> {
        self.problems
    }
}
