//! The list of trackers that are on.

use serde_json::Value;

/// Its key.
pub(super) const TRACKERS: &str = "trackers";
/// What files of older versions say instead of `trackers = ["tensorboard"]`.
pub(super) const TENSORBOARD: &str = "tensorboard";

/// Names of the trackers that merged settings turn on, each once: a list, or words between commas as an environment variable
/// has them.
///
/// # Errors
/// The key that has another type, and what it must be.
pub(super) fn wanted(tree: &Value) -> Result<Vec<String>, (&'static str, &'static str)> {
    let mut names: Vec<&str> = match tree.get(TRACKERS) {
        None => vec![],
        Some(Value::String(names)) => names.split(',').map(str::trim).collect(),
        Some(Value::Array(names)) if names.iter().all(Value::is_string) => {
            names.iter().filter_map(Value::as_str).collect()
        }
        Some(_) => {
            let what = "this must be a list of names, for example `[\"tensorboard\"]`";
            return Err((TRACKERS, what));
        }
    };
    match tree.get(TENSORBOARD) {
        None | Some(Value::Bool(false)) => {}
        Some(Value::Bool(true)) => names.push(TENSORBOARD),
        Some(_) => return Err((TENSORBOARD, "this must be true or false")),
    }
    let mut once: Vec<String> = vec![];
    for name in names {
        if !name.is_empty() && once.iter().all(|known| known != name) {
            once.push(name.to_owned());
        }
    }
    Ok(once)
}
