//! What networks cost.

pub mod latency;
pub mod macs;
pub mod memory;
pub mod params;

use std::sync::Arc;

use nasfw_framework::prelude::*;
use nasfw_framework::registry::{Kind, Registry};
use serde_json::{Map, Value};

/// What settings write of a cost: a table with its own settings, or one value, which is that of the key `short`.
pub(crate) fn table(written: &Value, short: &str) -> Map<String, Value> {
    match written {
        Value::Object(table) => table.clone(),
        value => Map::from_iter([(short.to_owned(), value.clone())]),
    }
}

/// The cost of a name, with its own settings.
///
/// # Errors
/// A name that nobody knows, and settings that it does not have.
pub(crate) fn cost(name: &str, settings: &Map<String, Value>) -> Result<Arc<dyn Cost>> {
    let plugin = Registry::load()?.get(Kind::Cost, name)?;
    Ok(Arc::from(plugin.cost(&plugin.section_with(settings)?)?))
}

/// An error, and what to type instead, in a line.
pub(crate) fn in_a_line(e: &Error) -> String {
    let help = e.help().map_or(String::new(), |help| format!("; {help}"));
    format!("{e}{help}")
}
