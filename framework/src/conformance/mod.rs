//! The conformance suite: one call checks a plugin, first-party or a stranger's, against what every plugin of its kind
//! must hold. It knows no space and no strategy.

mod report;

pub use report::{Finding, Report, Verdict};
