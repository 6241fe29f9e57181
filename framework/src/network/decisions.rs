//! What a network under construction is told of its architecture.

use crate::arch::{ArchSpec, Choice};
use crate::error::Error;
use crate::supernet::SupernetOptions;

/// How far a network's architecture is decided.
#[derive(Debug)]
pub(super) enum Decisions {
    /// There is nothing to decide.
    Nothing,
    /// An architecture of a space.
    Made(ArchSpec, Choice),
    /// All architectures of a space: what a supernet holds.
    Open(ArchSpec, SupernetOptions),
}

impl Decisions {
    /// Whether all candidates are there.
    pub(super) fn are_open(&self) -> bool {
        matches!(self, Self::Open(..))
    }

    /// Names of a row's candidates, and the columns of those that are there; none where there is no such row.
    pub(super) fn row(&self, group: usize, row: usize) -> Option<(Vec<String>, Vec<usize>)> {
        let (Self::Made(spec, _) | Self::Open(spec, _)) = self else {
            return None;
        };
        let names = &spec.groups().get(group)?.rows.get(row)?.candidates;
        let columns = match self {
            Self::Nothing => vec![],
            Self::Made(_, choice) => choice.groups().get(group)?.get(row)?.clone(),
            Self::Open(_, options) => {
                let all = 0..names.len();
                all.filter(|&c| options.allows(group, row, c)).collect()
            }
        };
        Some((names.clone(), columns))
    }
}

/// A supernet can't have an option.
pub(super) fn refused(option: &str, why: &str) -> Error {
    Error::Incompatible {
        what: "this strategy on this space".into(),
        why: format!("the strategy needs the supernet option `{option}`, {why}"),
        help: "choose another space with `--space`; `nasfw list spaces` shows all".into(),
    }
}

/// What a supernet of candidates that are networks of any shape can't have.
pub(super) fn unknown(options: &SupernetOptions) -> Option<Error> {
    let asked = [
        ("partial_channels", options.partial() != 1),
        ("auxiliary_skip", options.auxiliary_skip),
        ("skip_dropout", options.skip_dropout),
    ];
    let (name, _) = asked.into_iter().find(|(_, asked)| *asked)?;
    Some(refused(
        name,
        "which the supernet of this space does not have",
    ))
}
