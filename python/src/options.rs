//! What plugins in Python say of themselves, and their options.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use nasfw_framework::config::{ConfigError, Validator};
use nasfw_framework::registry::{Kind, Parse, Plugin};
use pyo3::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::errors::inward;
use crate::plain;

/// Python's part of the border.
pub const PLUGINS: &str = "nasfw._plugins";

/// Where the classes of announced plugins are, by the plugins' kinds and names.
static CLASSES: Mutex<BTreeMap<(&'static str, String), String>> = Mutex::new(BTreeMap::new());

/// What a run keeps of a plugin in Python: where its class is found again, and its options.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// The plugin's name.
    pub plugin: String,
    /// `module:Class`, or `/path/file.py:Class`.
    class: String,
    #[serde(flatten)]
    options: Map<String, Value>,
}

impl Kept {
    /// The settings of an announced plugin, from a section of the configuration.
    ///
    /// # Errors
    /// What the class refuses, by its key.
    pub fn of(kind: Kind, section: &Value) -> Result<Self, ConfigError> {
        let plugin = section["name"].as_str().unwrap_or_default().to_owned();
        let classes = CLASSES.lock().unwrap_or_else(PoisonError::into_inner);
        let class = classes.get(&(kind.name(), plugin.clone())).cloned();
        drop(classes);
        let class = class.unwrap_or_default();
        let mut options = section.as_object().cloned().unwrap_or_default();
        options.remove("name");
        Ok(Self {
            options: typed(&class, options)?,
            plugin,
            class,
        })
    }

    /// The plugin as an object.
    pub fn make<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let arguments = self.arguments(py)?;
        py.import(PLUGINS)?.call_method1("make", arguments)
    }

    /// Options by their names.
    pub fn options(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.options
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    fn arguments(&self, py: Python<'_>) -> PyResult<(&str, Py<PyAny>)> {
        let options = Value::Object(self.options.clone());
        Ok((&self.class, plain::to_python(py, &options)?))
    }

    /// What the plugin itself says is wrong with its options.
    pub fn validate(&self, section: &str, v: &mut Validator) {
        let problems = Python::attach(|py| -> PyResult<Vec<(String, String)>> {
            py.import(PLUGINS)?
                .call_method1("problems", self.arguments(py)?)?
                .extract()
        });
        match problems {
            Ok(problems) => {
                for (key, what) in problems {
                    let key = match key.as_str() {
                        "" => section.to_owned(),
                        key => format!("{section}.{key}"),
                    };
                    v.problem(&key, what);
                }
            }
            Err(e) => v.problem(section, inward(&self.plugin, e).to_string()),
        }
    }
}

/// What a class says of itself.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct About {
    name: String,
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
    /// As a plugin of a kind, which lives as long as the program.
    pub fn plugin(self, kind: Kind, class: &str, parse: Parse) -> Plugin {
        let mut classes = CLASSES.lock().unwrap_or_else(PoisonError::into_inner);
        classes.insert((kind.name(), self.name.clone()), class.to_owned());
        drop(classes);
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
fn typed(class: &str, options: Map<String, Value>) -> Result<Map<String, Value>, ConfigError> {
    let read = |py: Python<'_>| -> PyResult<(Value, Vec<(String, String)>)> {
        let options = plain::to_python(py, &Value::Object(options))?;
        let (options, problems): (Bound<'_, PyAny>, Vec<(String, String)>) = py
            .import(PLUGINS)?
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
