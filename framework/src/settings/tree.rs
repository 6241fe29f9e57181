//! Settings as trees of tables.

use std::collections::BTreeMap;

use serde_json::Value;

/// Leaves of a tree as dotted paths; arrays are leaves.
pub fn flatten(value: &Value) -> BTreeMap<String, Value> {
    fn walk(at: &str, value: &Value, out: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(map) if !map.is_empty() || at.is_empty() => {
                for (k, v) in map {
                    let path = if at.is_empty() {
                        k.clone()
                    } else {
                        format!("{at}.{k}")
                    };
                    walk(&path, v, out);
                }
            }
            leaf => {
                out.insert(at.to_owned(), leaf.clone());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk("", value, &mut out);
    out
}

/// A value in words: text as it is, anything else as JSON has it.
pub fn in_words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a dotted key is that of a leaf or a table in a tree of defaults. What an empty table in the tree may hold, its
/// plugin knows.
pub fn is_option(defaults: &Value, key: &str) -> bool {
    let mut at = defaults;
    for (depth, part) in key.split('.').enumerate() {
        let Some(table) = at.as_object() else {
            return false;
        };
        match table.get(part) {
            Some(value) => at = value,
            None => return depth > 0 && table.is_empty(),
        }
    }
    true
}
