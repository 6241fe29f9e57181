//! A TOML file with the place of everything that it says.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml_edit::TableLike;

use crate::error::{Error, Result};
use crate::settings::{ConfigError, Origin};

/// The most bytes of a file that people write: a configuration, a plan, a space.
pub const TEXT_LIMIT: u64 = 1 << 20;

/// A TOML file with the place of everything that it says.
#[derive(Debug, Clone)]
pub struct Document {
    path: PathBuf,
    text: String,
    /// Where every line but the first begins.
    lines: Vec<usize>,
    /// Dotted path, with indices of lists (`strategies[0].name`), to the bytes of the value.
    spans: BTreeMap<String, Range<usize>>,
    /// Dotted paths of what is no table; lists are leaves.
    leaves: BTreeSet<String>,
}

impl Document {
    /// Parses `text`, which was read from `path`.
    ///
    /// # Errors
    /// Text that is no TOML, with its place, and `help` as what to type then.
    pub fn parse(path: &Path, text: String, help: &str) -> Result<Self> {
        let parsed = text.parse::<toml_edit::Document<String>>();
        let mut document = Self {
            path: path.to_owned(),
            lines: text.match_indices('\n').map(|(at, _)| at + 1).collect(),
            text,
            spans: BTreeMap::new(),
            leaves: BTreeSet::new(),
        };
        let parsed = parsed.map_err(|e| {
            let origin = document.at(e.span().unwrap_or(0..0));
            let problem = format!("this is not valid TOML: {}", e.message().trim());
            Error::Config(Box::new(
                ConfigError::one("", problem, Some(origin)).with_help(help),
            ))
        })?;
        document.walk("", parsed.as_table(), false);
        Ok(document)
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The place of some of its bytes.
    pub fn at(&self, span: Range<usize>) -> Origin {
        Origin::File {
            path: self.path.clone(),
            line: self.lines.partition_point(|begin| *begin <= span.start) + 1,
            span,
        }
    }

    /// Where a path, or the nearest thing around it, is said.
    pub fn origin(&self, mut path: &str) -> Option<Origin> {
        loop {
            if let Some(span) = self.spans.get(path) {
                return Some(self.at(span.clone()));
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Dotted paths of what is no table; lists are leaves.
    pub fn leaves(&self) -> impl Iterator<Item = &str> {
        self.leaves.iter().map(String::as_str)
    }

    fn walk(&mut self, at: &str, table: &dyn TableLike, in_list: bool) {
        for (key, item) in table.iter() {
            let path = if at.is_empty() {
                key.to_owned()
            } else {
                format!("{at}.{key}")
            };
            let key_span = table.get_key_value(key).and_then(|(k, _)| k.span());
            if let Some(span) = item.span().or(key_span) {
                self.spans.insert(path.clone(), span);
            }
            match item.as_table_like() {
                Some(inner) if !inner.is_empty() => self.walk(&path, inner, in_list),
                _ if in_list => {}
                _ => {
                    self.leaves.insert(path.clone());
                }
            }
            for (i, value) in item.as_array().into_iter().flatten().enumerate() {
                let inner = value.as_inline_table().map(|t| t as &dyn TableLike);
                self.walk_entry(format!("{path}[{i}]"), value.span(), inner);
            }
            for (i, table) in item.as_array_of_tables().into_iter().flatten().enumerate() {
                self.walk_entry(format!("{path}[{i}]"), table.span(), Some(table));
            }
        }
    }

    /// An entry of a list.
    fn walk_entry(
        &mut self,
        path: String,
        span: Option<Range<usize>>,
        table: Option<&dyn TableLike>,
    ) {
        if let Some(table) = table {
            self.walk(&path, table, true);
        }
        self.spans.extend(span.map(|span| (path, span)));
    }
}
