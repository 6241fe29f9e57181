//! Range checks that collect every problem instead of stopping at the first.

use super::{ConfigError, Problem};

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
        self.problems
            .extend(inner.problems.into_iter().map(|p| Problem {
                key: match p.key.strip_prefix("strategy.") {
                    Some(rest) => format!("strategy.base.{rest}"),
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
