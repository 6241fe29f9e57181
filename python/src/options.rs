//! What plugins in Python say of themselves, and their options.

use nasfw_framework::config::ConfigError;
use nasfw_framework::registry::{Parse, Plugin};
use pyo3::prelude::*;
use serde_json::{Map, Value};

use crate::errors::inward;
use crate::plain;

/// What a class says of itself.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct About {
    pub name: String,
    summary: String,
    source: String,
    /// Commented TOML.
    defaults: String,
    example: String,
    package: String,
    version: String,
    file: String,
}

impl About {
    /// As a plugin, which lives as long as the program.
    pub fn plugin(self, parse: Parse) -> Plugin {
        let forever = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        Plugin {
            name: forever(self.name),
            summary: forever(self.summary),
            source: forever(self.source),
            defaults: forever(self.defaults),
            presets: &[],
            families: &[],
            example: forever(self.example),
            spaces: &[],
            parse,
            kept_as: "python",
            crate_name: forever(self.package),
            crate_version: forever(self.version),
            file: forever(self.file),
        }
    }
}

/// Options as the class of a plugin has them: of its types, none unknown, those that are left out with their defaults.
///
/// # Errors
/// What the class refuses, by its key.
pub fn typed(class: &str, options: Map<String, Value>) -> Result<Map<String, Value>, ConfigError> {
    let read = |py: Python<'_>| -> PyResult<(Value, Vec<(String, String)>)> {
        let options = plain::to_python(py, &Value::Object(options))?;
        let (options, problems): (Bound<'_, PyAny>, Vec<(String, String)>) = py
            .import("nasfw._plugins")?
            .call_method1("typed", (class, options))?
            .extract()?;
        Ok((plain::from_python(&options)?, problems))
    };
    let (options, problems) = Python::attach(read)
        .map_err(|e| ConfigError::one("", inward(class, e).to_string(), None))?;
    let mut problems = problems.into_iter();
    if let Some((key, what)) = problems.next() {
        let mut error = ConfigError::one(key, what, None);
        for (key, what) in problems {
            error
                .problems
                .extend(ConfigError::one(key, what, None).problems);
        }
        return Err(error);
    }
    match options {
        Value::Object(options) => Ok(options),
        _ => Ok(Map::new()),
    }
}
