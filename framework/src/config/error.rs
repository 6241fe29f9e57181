//! Errors of a configuration, with the place they come from.

use std::fmt;

use super::Origin;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the key, for example `strategy.lr`; empty when it concerns a whole layer.
    pub key: String,
    /// What is wrong, lower case.
    pub message: String,
    /// What to do about this one.
    pub hint: Option<String>,
    /// Where the value was set.
    pub origin: Option<Origin>,
}

/// All that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
    /// What to type.
    pub help: Option<String>,
}

impl ConfigError {
    /// An error of one problem.
    pub fn one(key: impl Into<String>, message: impl Into<String>, origin: Option<Origin>) -> Self {
        let key = key.into();
        Self {
            problems: vec![Problem {
                key,
                message: message.into(),
                hint: None,
                origin,
            }],
            help: None,
        }
    }

    /// Adds what to type.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.problems.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            if !p.key.is_empty() {
                write!(f, "`{}`: ", p.key)?;
            }
            write!(f, "{}", p.message)?;
            if let Some(origin) = &p.origin {
                write!(f, " ({origin})")?;
            }
            if let Some(hint) = &p.hint {
                write!(f, "; {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
