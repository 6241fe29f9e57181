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
    /// Of options that change nothing as the others are.
    idle: Vec<Problem>,
}

fn problem(key: &str, message: String) -> Problem {
    Problem {
        key: key.into(),
        message,
        hint: None,
        origin: None,
    }
}

/// What is said of `from…` is said of `to…`.
fn renamed(problems: Vec<Problem>, from: &str, to: &str) -> impl Iterator<Item = Problem> {
    problems.into_iter().map(move |p| Problem {
        key: match p.key.strip_prefix(from) {
            Some(rest) => format!("{to}{rest}").trim_end_matches('.').to_owned(),
            None => p.key,
        },
        ..p
    })
}

impl Validator {
    /// Records a problem of `key`, a dotted path such as `strategy.lr`.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(problem(key, message.into()));
    }

    /// Says that `key` changes nothing, whatever its value, `because`, such as "without a limit". Say it without a look at
    /// the value: it is a mistake of those only who have set the option, which [`refuse_idle`](Self::refuse_idle) knows.
    pub fn idle(&mut self, key: &str, because: &str) {
        let message = format!("it would change nothing {because}");
        self.idle.push(problem(key, message));
    }

    /// Takes back what was said of `key`: whoever calls reads it, too.
    pub fn reads(&mut self, key: &str) {
        self.idle.retain(|problem| problem.key != key);
    }

    /// Makes problems of those idle options that `is_set` says were set, one for each that has none yet.
    pub fn refuse_idle(&mut self, is_set: impl Fn(&str) -> bool) {
        for idle in std::mem::take(&mut self.idle) {
            let named = |p: &Problem| p.key.split('[').next() == Some(idle.key.as_str());
            if is_set(&idle.key) && !self.problems.iter().any(named) {
                self.problems.push(idle);
            }
        }
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
        self.inner("strategy.", "strategy.base.", check);
    }

    /// Checks settings that are kept inside others: what `check` says of `from…` is said of `to…`.
    pub fn inner(&mut self, from: &str, to: &str, check: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        check(&mut inner);
        self.idle.extend(renamed(inner.idle, from, to));
        self.take_in(inner.problems, from, to);
    }

    /// Takes in what was found of settings that are kept inside others, renamed as by [`inner`](Self::inner).
    pub fn take_in(&mut self, problems: Vec<Problem>, from: &str, to: &str) {
        self.problems.extend(renamed(problems, from, to));
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
