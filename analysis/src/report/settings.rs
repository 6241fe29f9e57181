//! Settings: what differs from the defaults first, then all.

use std::collections::BTreeMap;

use maud::{Markup, html};
use nasfw_framework::config::{Layer, flatten, resolve};
use nasfw_framework::registry::{Kind, Registry};
use serde_json::Value;

use super::parts::{clean, scroll};
use crate::record::Record;

/// Two folds: differences and the whole file.
pub(super) fn section(record: &Record) -> Markup {
    let defaults = defaults(record);
    let changed = |(key, value): &(&String, &Value)| match &defaults {
        Some(defaults) => defaults.get(*key) != Some(value),
        None => false,
    };
    let changed: Vec<(&String, &Value)> = record.settings.iter().filter(changed).collect();
    html! {
        @match &defaults {
            None => p { "This program lacks a plugin of the run, so that its defaults are not known." }
            Some(_) if changed.is_empty() => p { "All settings are the defaults of the plugins." }
            Some(defaults) => (scroll("Settings that differ from the defaults", &html! {
                table {
                    caption { "Settings that differ from the defaults of the plugins that were chosen." }
                    thead { tr { th scope="col" { "Setting" } th scope="col" { "Value" } th scope="col" { "Default" } } }
                    tbody { @for (key, value) in &changed { tr {
                        th scope="row" { code { (clean(key)) } }
                        td.long { (text(value)) }
                        td.long { @match defaults.get(*key) { Some(value) => (text(value)), None => "–" } }
                    } } }
                }
            }))
        }
        details {
            summary { "All settings (config.toml)" }
            pre { (clean(&record.config)) }
        }
    }
}

/// A value of a setting.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "(empty)".into(),
        Value::String(text) => clean(text).into_owned(),
        other => clean(&other.to_string()).into_owned(),
    }
}

/// What a run with the same plugins and no other setting would have.
fn defaults(record: &Record) -> Option<BTreeMap<String, Value>> {
    let registry = Registry::load().ok()?;
    let options = Kind::ALL.iter().filter_map(|kind| {
        let key = format!("{}.name", kind.name());
        let name = record.setting(&key);
        (!name.is_empty()).then(|| (key, name, String::new()))
    });
    let layer = Layer::CommandLine(options.collect());
    let resolved = resolve(&registry, &[layer]).ok()?;
    Some(flatten(&resolved.value))
}
