//! A plugin's options as its commented defaults declare them, and other values to try.

use serde_json::Value;

use nasfw_framework::registry::Plugin;
use nasfw_framework::{Error, Result};

/// An option of a plugin's own section.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// Keys from the section down.
    pub path: Vec<String>,
    /// The default.
    pub value: Value,
    /// What its comment puts in double quotes: the names that it may have.
    pub words: Vec<String>,
    /// Whether there is a comment at all.
    pub commented: bool,
}

impl Setting {
    /// `arch.lr`.
    pub fn name(&self) -> String {
        self.path.join(".")
    }

    /// Other values of the same type, likely to be valid and to matter.
    pub fn others(&self, names: &[&str]) -> Vec<Value> {
        let float = |v: f64| serde_json::Number::from_f64(v).map(Value::Number);
        match &self.value {
            Value::Bool(b) => vec![Value::Bool(!b)],
            Value::Number(n) if n.is_f64() => {
                let v = n.as_f64().unwrap_or_default();
                let tries = [v * 0.5, v * 2.0 + 0.1, v + 1e-3, v + 0.1, -v, v - 0.5];
                tries
                    .into_iter()
                    .filter(|t| *t != v)
                    .filter_map(float)
                    .collect()
            }
            Value::Number(n) => {
                let v = n.as_i64().unwrap_or_default();
                [v + 1, v * 2 + 1, v - 1, v / 2]
                    .into_iter()
                    .filter(|t| *t != v)
                    .map(Value::from)
                    .collect()
            }
            Value::String(now) => {
                let words = self.words.iter().map(String::as_str);
                words
                    .chain(names.iter().copied())
                    .filter(|w| w != now)
                    .map(Value::from)
                    .collect()
            }
            Value::Array(items) => {
                let numbers: Option<Vec<f64>> = items.iter().map(Value::as_f64).collect();
                let scale = |by: f64| {
                    let scaled = numbers.iter().flatten().filter_map(|v| float(v * by));
                    Value::Array(scaled.collect())
                };
                if numbers.as_ref().is_some_and(|n| !n.is_empty()) {
                    vec![scale(0.9), scale(0.5)]
                } else if items.len() > 1 {
                    // Names, of which it may be fewer.
                    vec![Value::Array(items[1..].to_vec())]
                } else {
                    // One name, or none: another one in its place.
                    let words = self
                        .words
                        .iter()
                        .filter(|w| !items.contains(&Value::from(w.as_str())));
                    words
                        .map(|w| Value::Array(vec![w.as_str().into()]))
                        .collect()
                }
            }
            Value::Null | Value::Object(_) => vec![],
        }
    }
}

/// `section` with another value at a path.
pub(super) fn with(section: &Value, path: &[String], value: Value) -> Value {
    let mut changed = section.clone();
    let mut at = &mut changed;
    for key in path {
        at = &mut at[key.as_str()];
    }
    *at = value;
    changed
}

/// Puts one table over another.
pub(super) fn lay(base: &mut Value, over: &Value) {
    match over.as_object() {
        Some(table) => table
            .iter()
            .for_each(|(key, value)| lay(&mut base[key], value)),
        None if over.is_null() => {}
        None => *base = over.clone(),
    }
}

/// Every option that the plugin's defaults declare, with its value in `section`.
pub(super) fn of(plugin: &Plugin, section: &Value) -> Result<Vec<Setting>> {
    let kind = plugin.kind().name();
    let document: toml_edit::DocumentMut = plugin
        .defaults
        .parse()
        .map_err(|e| Error::Registry(format!("defaults of `{}`: {e}", plugin.name)))?;
    let mut settings = vec![];
    collect(
        &plugin.default_section()?,
        document.get(kind).and_then(|i| i.as_table_like()),
        &mut vec![],
        &mut settings,
    );
    for setting in &mut settings {
        let now = setting
            .path
            .iter()
            .fold(section, |at, key| &at[key.as_str()]);
        setting.value = now.clone();
    }
    Ok(settings)
}

fn collect(
    section: &Value,
    table: Option<&dyn toml_edit::TableLike>,
    path: &mut Vec<String>,
    settings: &mut Vec<Setting>,
) {
    for (key, value) in section.as_object().into_iter().flatten() {
        // What a wrapper wraps is a plugin that has its own report.
        if path.is_empty() && matches!(key.as_str(), "name" | "base") {
            continue;
        }
        path.push(key.clone());
        if value.is_object() {
            let inner = table
                .and_then(|t| t.get(key))
                .and_then(|i| i.as_table_like());
            collect(value, inner, path, settings);
        } else {
            let comment = table
                .and_then(|t| t.key(key))
                .and_then(|k| k.leaf_decor().prefix())
                .and_then(|p| p.as_str())
                .unwrap_or_default();
            settings.push(Setting {
                path: path.clone(),
                value: value.clone(),
                words: quoted(comment),
                commented: comment.contains('#'),
            });
        }
        path.pop();
    }
}

/// What stands in double quotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}
