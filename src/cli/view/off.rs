//! No live view: the program was built without its feature `tui`.

use nasfw_framework::{Error, Result};

/// What there would be.
pub struct Live;

/// Never.
pub fn is_on() -> bool {
    false
}

/// Nothing is held back.
pub fn hold(_text: &str) {}

/// There is nothing to give back.
pub fn restore() {}

/// Refuses `typed`.
pub fn need_terminal(typed: &str, _help: &str) -> Result<()> {
    Err(Error::Incompatible {
        what: typed.into(),
        why: "this program was built without its feature `tui`".into(),
        help: format!("leave `{typed}` out"),
    })
}
