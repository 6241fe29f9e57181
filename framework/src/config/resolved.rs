//! Merged settings, and where every value came from.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::trackers::TRACKERS;
use crate::registry::Kind;
use crate::settings::{Origin, differ, pointer};

/// Merged configuration with the origin of every leaf.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The merged tree.
    pub value: Value,
    /// Dotted path of a leaf to where it was set.
    pub origins: BTreeMap<String, Origin>,
    /// What the tree would be without the user's layers.
    pub(super) defaults: Value,
}

impl Resolved {
    /// The tree as TOML, for `config.toml` of a run.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(&self.value).unwrap_or_default()
    }

    /// A section of the tree.
    pub fn section(&self, kind: Kind) -> Value {
        self.at(kind.name())
    }

    /// What is at a dotted path of the tree; an empty table where nothing is.
    pub(super) fn at(&self, path: &str) -> Value {
        let found = self.value.pointer(&pointer(path));
        found.cloned().unwrap_or(Value::Object(Map::new()))
    }

    /// The same of the tree without the user's layers, none where nothing is.
    pub(super) fn default_at(&self, path: &str) -> Option<&Value> {
        self.defaults.pointer(&pointer(path))
    }

    /// Whether the user's layers made a leaf another one than it is by default. Who writes the default down, as
    /// `config.toml` of a run does, has not set it.
    pub(super) fn is_set(&self, path: &str) -> bool {
        differ(&self.value, &self.defaults, path)
    }

    /// Names of the trackers that are on.
    pub fn trackers(&self) -> impl Iterator<Item = &str> {
        let names = self.value.get(TRACKERS).and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Where a key, or the nearest key around it, was set.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        let mut key = key.split('[').next().unwrap_or(key);
        loop {
            if let Some(o) = self.origins.get(key) {
                return Some(o);
            }
            key = key.rsplit_once('.')?.0;
        }
    }
}
