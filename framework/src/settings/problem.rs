//! What is wrong with settings, with the place that it comes from.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The embedded defaults.
    Default,
    /// The defaults, or a preset, of a plugin.
    Plugin(String),
    /// A file: path, line (from 1) and the bytes of the value.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Bytes of the value (or of the key where it has none).
        span: Range<usize>,
    },
    /// An environment variable.
    Environment(String),
    /// An option of the command line, as typed.
    CommandLine(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default"),
            Self::Plugin(p) => write!(f, "{p}"),
            Self::File { path, line, .. } => write!(f, "{}, line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::CommandLine(option) => write!(f, "{option}"),
        }
    }
}

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

/// What serde says of a value of the wrong kind, without the names that kinds have in code.
pub fn misread(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let Some((found, expected)) = said.rsplit_once(", expected ") else {
        return said;
    };
    let kind = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        _ => return said,
    };
    format!("{found}, expected {kind}")
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde::de::DeserializeOwned;
    use serde_json::{Value, from_value, json};

    use super::misread;

    fn said<T: DeserializeOwned + std::fmt::Debug>(value: Value) -> String {
        misread(&from_value::<T>(value).unwrap_err())
    }

    #[test]
    fn kinds_of_values_have_plain_names() {
        assert_eq!(
            said::<u64>(json!(-3)),
            "invalid value: integer `-3`, expected a whole number from 0 on"
        );
        assert_eq!(
            said::<i32>(json!(0.5)),
            "invalid type: floating point `0.5`, expected a whole number"
        );
        assert_eq!(
            said::<f64>(json!("fast")),
            "invalid type: string \"fast\", expected a number"
        );
        assert_eq!(
            said::<bool>(json!(1)),
            "invalid type: integer `1`, expected a boolean"
        );
    }
}
