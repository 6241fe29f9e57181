//! Settings before anybody knows what they are for: trees, where values come from, what is wrong with them.

mod problem;
mod tree;
mod validate;

pub use problem::{ConfigError, Origin, Problem, misread};
pub use tree::{differ, flatten, in_words, is_option, pointer};
pub use validate::Validator;
