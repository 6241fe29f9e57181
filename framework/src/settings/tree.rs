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

/// A dotted path as RFC 6901 has it; the whole tree where it is empty.
pub fn pointer(path: &str) -> String {
    path.split('.')
        .filter(|part| !part.is_empty())
        .map(|part| format!("/{part}"))
        .collect()
}

/// Whether two trees have other values at a dotted path; 5 and 5.0 are one.
pub fn differ(one: &Value, other: &Value, path: &str) -> bool {
    let pointer = pointer(path);
    match (one.pointer(&pointer), other.pointer(&pointer)) {
        (Some(Value::Number(one)), Some(Value::Number(other))) => one.as_f64() != other.as_f64(),
        (one, other) => one != other,
    }
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
