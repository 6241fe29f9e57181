//! Where in a text the genotypes are: a file of named cells, a log, a result with a genotype in it, a bare cell.

use std::collections::HashMap;
use std::rc::Rc;

use nasfw_framework::arch::Genotype;

use super::form::{Format, FormatError};
use super::literal::{Limits, MAX_DEPTH, Parser, blank, last, line};
use super::text::{Place, Source, Wrong};
use super::value::{Kind, Value};
use super::{darts, literal, nasbench101, nasbench201, own};

/// How many genotypes a text may have.
pub(super) const MAX_FOUND: usize = 10_000;
/// What beginning to read a value that is none costs, in bytes.
const FAILED: usize = 64;
/// What a value with all that is kept beside it costs more than one inside another.
const STATEMENT: usize = 4;
/// How deep strings with genotypes may be nested in strings.
const MAX_STRINGS: usize = 3;

/// A genotype in a text, or something that resembles one and is none.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The names that lead to it, from the outermost: variables and keys.
    pub path: Vec<String>,
    /// Where it begins.
    pub at: usize,
    pub format: Format,
    pub read: Result<Genotype, Wrong>,
    /// Fields with something in them that do not belong to the form.
    pub passed_over: Vec<String>,
    /// Whether this may well be something else: code that makes a genotype, of values that only running it would tell.
    pub code: bool,
}

/// A value in a text and the variable that it is given to.
struct Statement {
    name: Option<String>,
    value: Result<Value, (Format, Wrong)>,
}

/// All genotypes of a text, in their order.
///
/// # Errors
/// A text beyond the limits.
pub(super) fn find(source: &Source<'_>) -> Result<Vec<Found>, FormatError> {
    let text = source.text;
    let all = Place {
        base: 0,
        exact: true,
    };
    let mut found = search(source, text, all, true)?;
    if found.iter().all(|f| f.code) {
        // Maybe it stands after a `#` that does not begin a comment, or in one.
        let more = search(source, text, all, false)?;
        if !more.is_empty() {
            found = more;
        }
    }
    if found.iter().all(|f| f.read.is_err()) {
        // Maybe in quotes of the kind that it has inside.
        let trimmed = text.trim_matches(blank);
        let mut ends = trimmed.chars();
        if let (Some(first), Some(last)) = (ends.next(), ends.next_back())
            && first == last
            && matches!(first, '\'' | '"' | '`')
        {
            let inside = ends.as_str();
            let base = inside.as_ptr() as usize - text.as_ptr() as usize;
            let more = search(source, inside, Place { base, exact: true }, true)?;
            if more.iter().any(|f| f.read.is_ok()) {
                found = more;
            }
        }
    }
    Ok(found)
}

fn search(
    source: &Source<'_>,
    text: &str,
    place: Place,
    comments: bool,
) -> Result<Vec<Found>, FormatError> {
    let mut search = Search {
        limits: Limits::of(text),
        variables: HashMap::new(),
        found: vec![],
    };
    let searched = search.text(text, place, comments, &[], 0);
    searched.map_err(|wrong| source.error(Format::of(text).unwrap_or(Format::Json), wrong))?;
    Ok(search.found)
}

struct Search {
    limits: Limits,
    variables: HashMap<String, Rc<Value>>,
    found: Vec<Found>,
}

impl Search {
    fn text(
        &mut self,
        text: &str,
        place: Place,
        comments: bool,
        path: &[String],
        strings: usize,
    ) -> Result<(), Wrong> {
        let before = self.found.len();
        let statements = statements(text, place, comments, &mut self.limits)?;
        let mut values = vec![];
        for Statement { name, value } in statements {
            let path: Vec<String> = path.iter().cloned().chain(name.clone()).collect();
            let value = match value {
                Ok(value) => value,
                Err((format, wrong)) => {
                    self.add(path, wrong.at, format, Err(wrong), vec![], false)?;
                    continue;
                }
            };
            let value = Rc::new(self.resolved(value)?);
            self.look(&value, &path, strings)?;
            if let Some(name) = &name {
                self.variables.insert(name.clone(), Rc::clone(&value));
            }
            values.push((name, value));
        }
        if self.found.len() == before {
            self.apart(values, path)?;
        }
        Ok(())
    }

    /// A genotype whose parts are variables of their own, or printed one after the other.
    fn apart(
        &mut self,
        values: Vec<(Option<String>, Rc<Value>)>,
        path: &[String],
    ) -> Result<(), Wrong> {
        for pair in values.windows(2) {
            if nasbench101::is_matrix(&pair[0].1) && nasbench101::is_labels(&pair[1].1) {
                let (matrix, labels) = ((*pair[0].1).clone(), (*pair[1].1).clone());
                let list = Value {
                    at: matrix.at,
                    end: labels.end,
                    kind: Kind::List(vec![matrix, labels]),
                };
                return self.look(&list, path, MAX_STRINGS);
            }
        }
        // The last value of a variable is the one that it has.
        let last: HashMap<&str, usize> = values
            .iter()
            .enumerate()
            .filter_map(|(k, (name, _))| Some((name.as_deref()?, k)))
            .collect();
        let parts = darts::FIELDS.iter().chain(&nasbench101::FIELDS);
        let mut parts: Vec<usize> = parts.filter_map(|name| last.get(name).copied()).collect();
        parts.sort_unstable();
        let pair = |k: &usize| {
            let (name, value) = &values[*k];
            let key = Value {
                at: value.at,
                end: value.at,
                kind: Kind::Name(name.clone().unwrap_or_default()),
            };
            (key, (**value).clone())
        };
        let parts: Vec<(Value, Value)> = parts.iter().map(pair).collect();
        if let (Some(first), Some(last)) = (parts.first(), parts.last()) {
            let (at, end) = (first.1.at, last.1.end);
            let kind = Kind::Dict(parts);
            let dict = Value { at, end, kind };
            self.own_form(&dict, path)?;
        }
        Ok(())
    }

    /// The value with the variables in it replaced by theirs, as far as they are known.
    fn resolved(&mut self, value: Value) -> Result<Value, Wrong> {
        if value_has(
            &value,
            &|v| matches!(&v.kind, Kind::Name(n) if self.variables.contains_key(n)),
        ) {
            self.replaced(&value, 0)
        } else {
            Ok(value)
        }
    }

    fn replaced(&mut self, value: &Value, depth: usize) -> Result<Value, Wrong> {
        if let Kind::Name(name) = &value.kind
            && let Some(known) = self.variables.get(name)
            && depth + height(known) <= MAX_DEPTH
        {
            self.limits.take(value.at, known.weight())?;
            return Ok((**known).clone());
        }
        let kind = match &value.kind {
            Kind::List(items) => Kind::List(self.list(items, depth)?),
            Kind::Dict(pairs) => Kind::Dict(self.pairs(pairs, depth)?),
            Kind::Call {
                name,
                list: items,
                named,
            } => Kind::Call {
                name: name.clone(),
                list: self.list(items, depth)?,
                named: self.pairs(named, depth)?,
            },
            kind => kind.clone(),
        };
        Ok(Value { kind, ..*value })
    }

    fn list(&mut self, items: &[Value], depth: usize) -> Result<Vec<Value>, Wrong> {
        items.iter().map(|v| self.replaced(v, depth + 1)).collect()
    }

    fn pairs(
        &mut self,
        pairs: &[(Value, Value)],
        depth: usize,
    ) -> Result<Vec<(Value, Value)>, Wrong> {
        pairs
            .iter()
            .map(|(k, v)| Ok((k.clone(), self.replaced(v, depth + 1)?)))
            .collect()
    }

    /// Adds the genotypes in a value.
    fn look(&mut self, value: &Value, path: &[String], strings: usize) -> Result<(), Wrong> {
        if self.own_form(value, path)? {
            return Ok(());
        }
        if let Some(text) = value.text() {
            return if strings < MAX_STRINGS {
                self.text(text, value.text_place(), true, path, strings + 1)
            } else {
                Ok(())
            };
        }
        let fields = value.fields();
        let genotype = fields.iter().find(|f| f.0.eq_ignore_ascii_case("genotype"));
        if let Some(&(_, _, value)) = genotype {
            // A result has its architecture here; what else is like one is said about it.
            let before = self.found.len();
            self.look(value, path, strings)?;
            if self.found.len() == before && matches!(value.kind, Kind::Dict(_)) {
                self.add(
                    path.to_vec(),
                    value.at,
                    Format::Json,
                    own::read(value),
                    vec![],
                    false,
                )?;
            }
            if self.found.len() > before {
                return Ok(());
            }
        }
        let named: Vec<*const Value> = fields.iter().map(|f| std::ptr::from_ref(f.2)).collect();
        for (key, _, value) in &fields {
            let path: Vec<String> = path.iter().cloned().chain([(*key).to_owned()]).collect();
            self.look(value, &path, strings)?;
        }
        for part in value.parts() {
            if !named.contains(&std::ptr::from_ref(part)) {
                self.look(part, path, strings)?;
            }
        }
        Ok(())
    }

    /// Reads a value that has a genotype's form; false where it has none.
    fn own_form(&mut self, value: &Value, path: &[String]) -> Result<bool, Wrong> {
        let fields = self.declared();
        let (format, read, passed_over) = if own::is_one(value) {
            (Format::Json, own::read(value), vec![])
        } else if let Some(parts) = darts::parts(value, &fields) {
            (Format::Darts, darts::read(value, &parts), parts.passed_over)
        } else if let Some(parts) = nasbench101::parts(value) {
            (
                Format::Nasbench101,
                nasbench101::read(value, &parts),
                vec![],
            )
        } else if nasbench201::is_one(value) {
            (Format::Nasbench201, nasbench201::read(value), vec![])
        } else {
            return Ok(false);
        };
        // Code that makes a genotype has names where a genotype has lists; bars and tildes also stand in tables.
        let known = |v: &Value| {
            v.text()
                .is_some_and(|t| nasbench201::OPERATIONS.iter().any(|op| t.contains(op)))
        };
        let bars = format == Format::Nasbench201 && read.is_err() && !known(value);
        let code = bars
            || read.is_err()
                && matches!(&value.kind, Kind::Call { .. })
                && !value_has(value, &|v| {
                    v.list().is_some() || matches!(v.kind, Kind::Text { .. })
                });
        self.add(path.to_vec(), value.at, format, read, passed_over, code)?;
        Ok(true)
    }

    /// The fields that the text declares for `Genotype`, in their order.
    fn declared(&self) -> Vec<String> {
        let Some(Kind::Call { list, .. }) = self.variables.get("Genotype").map(|v| &v.kind) else {
            return vec![];
        };
        match list.get(1).map(|v| &v.kind) {
            Some(Kind::Text { text, .. }) => {
                let names = text.split(|c: char| c.is_whitespace() || c == ',');
                names.filter(|n| !n.is_empty()).map(Into::into).collect()
            }
            Some(Kind::List(items)) => items
                .iter()
                .filter_map(|v| Some(v.text()?.into()))
                .collect(),
            _ => vec![],
        }
    }

    fn add(
        &mut self,
        path: Vec<String>,
        at: usize,
        format: Format,
        read: Result<Genotype, Wrong>,
        passed_over: Vec<String>,
        code: bool,
    ) -> Result<(), Wrong> {
        if self.found.len() == MAX_FOUND {
            return Wrong::at(
                at,
                format!(
                    "there are more than {MAX_FOUND} genotypes up to here; give a part of the text"
                ),
            );
        }
        self.found.push(Found {
            path,
            at,
            format,
            read,
            passed_over,
            code,
        });
        Ok(())
    }
}

fn value_has(value: &Value, is: &impl Fn(&Value) -> bool) -> bool {
    is(value) || value.parts().iter().any(|v| value_has(v, is))
}

/// Whether these are numbers and no adjacency matrix, as logs are full of.
fn is_figures(value: &Value) -> bool {
    !nasbench101::is_matrix(value)
        && !value_has(value, &|v| {
            !matches!(
                v.kind,
                Kind::Number(_) | Kind::Bool(_) | Kind::Nothing | Kind::List(_)
            )
        })
}

fn height(value: &Value) -> usize {
    1 + value.parts().iter().map(|v| height(v)).max().unwrap_or(0)
}

/// The values that stand in a text, whatever else is around them.
fn statements(
    text: &str,
    place: Place,
    comments: bool,
    limits: &mut Limits,
) -> Result<Vec<Statement>, Wrong> {
    let mut statements = vec![];
    let mut at = 0;
    // The variable before an equals sign or a colon.
    let mut name: Option<String> = None;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let before = limits.values;
        let mut parser = Parser::new(text, at, place, limits);
        let start = at;
        let mut after_value = false;
        let value = match c {
            '#' if comments => {
                at += line(rest);
                continue;
            }
            c if blank(c) || c == '\\' => {
                at += c.len_utf8();
                continue;
            }
            '|' => match nasbench201::length(rest) {
                0 => None,
                long => {
                    parser.at += long;
                    let value = Value {
                        at: place.of(at),
                        end: place.of(at + long),
                        kind: Kind::Text {
                            text: rest[..long].into(),
                            inner: place.exact.then(|| place.of(at)),
                        },
                    };
                    Some(Ok(value))
                }
            },
            '(' | '[' | '{' => Some(parser.value(0, true)),
            // After a word the quote in `cell's` begins no string.
            _ if parser.quoted() && !text[..at].ends_with(|c: char| c.is_alphanumeric()) => {
                Some(parser.value(0, true))
            }
            c if c.is_alphabetic() || c == '_' => {
                let word = parser.word();
                let end = parser.at;
                let next = rest[word.len()..].trim_start_matches([' ', '\t']);
                if next.starts_with('=') && !next.starts_with("==") {
                    // In `x: Type = …` it is x.
                    let typed = name.take().filter(|n| line_begins(&text[..at], n));
                    name = typed.or(Some(last(word).into()));
                    at = text.len() - next.len() + 1;
                    let value = text[at..].trim_start_matches([' ', '\t']);
                    let alias = literal::word(value);
                    let tail = value[alias.len()..].trim_start_matches([' ', '\t']);
                    if !alias.is_empty()
                        && (tail.is_empty() || tail.starts_with(['\n', '\r', '#', ';']))
                    {
                        let end = text.len() - value.len() + alias.len();
                        limits.take(place.of(end), STATEMENT)?;
                        statements.push(Statement {
                            name: name.take(),
                            value: Ok(Value {
                                at: place.of(end - alias.len()),
                                end: place.of(end),
                                kind: Kind::Name(alias.into()),
                            }),
                        });
                        at = end;
                    }
                    continue;
                }
                if next.starts_with(':') {
                    name = Some(last(word).into());
                    at = text.len() - next.len() + 1;
                    continue;
                }
                if next.starts_with('(') {
                    let declared = ["class", "def"].contains(&previous(text, at));
                    parser.at = at;
                    let call = parser.value(0, true);
                    if declared {
                        at = end;
                        name = None;
                        continue;
                    }
                    if call.is_err() {
                        after_value = true;
                    }
                    Some(call)
                } else {
                    at = end;
                    name = None;
                    continue;
                }
            }
            c if c.is_numeric() => {
                // With what follows directly, so that the quote in 5' begins no string.
                at += rest
                    .find(|c: char| !c.is_alphanumeric())
                    .unwrap_or(rest.len());
                name = None;
                continue;
            }
            _ => None,
        };
        let (end, too_deep) = (parser.at, parser.too_deep);
        match value {
            None => {
                at += c.len_utf8();
                name = None;
            }
            Some(Ok(value)) => {
                at = end;
                let name = name.take();
                if name.is_none() && is_figures(&value) {
                    limits.values = before;
                    continue;
                }
                limits.take(value.at, STATEMENT)?;
                statements.push(Statement {
                    name,
                    value: Ok(value),
                });
            }
            Some(Err(wrong)) => {
                if limits.values == 0 {
                    return Err(wrong);
                }
                let Some(left) = limits.vain.checked_sub(FAILED + end.saturating_sub(start)) else {
                    return Wrong::at(
                        place.of(start),
                        "from here on brackets and quotes are open that are not closed",
                    );
                };
                limits.vain = left;
                let head = &text[start..];
                let named = name.take();
                match resembled(head) {
                    Some(format) => {
                        statements.push(Statement {
                            name: named,
                            value: Err((format, wrong)),
                        });
                        // What was read of it is no genotype of its own.
                        at = end.max(start + c.len_utf8());
                    }
                    // Inside it the brackets are as deep.
                    None if too_deep => at = end.max(start + c.len_utf8()),
                    None if after_value => at = start + word_length(head),
                    None => at = start + c.len_utf8(),
                }
            }
        }
    }
    Ok(statements)
}

/// The form that a text which can't be read begins as.
fn resembled(text: &str) -> Option<Format> {
    let length = word_length(text);
    let word = last(&text[..length]);
    let called = text[length..].trim_start().starts_with('(');
    match word {
        _ if called && word.contains("Genotype") => Some(Format::Darts),
        _ if called && word.ends_with("ModelSpec") => Some(Format::Nasbench101),
        _ => {
            // An object, by its first key.
            let inside = text.strip_prefix('{')?.trim_start();
            let key = inside.strip_prefix(['"', '\''])?;
            let key = &key[..key.find(['"', '\''])?];
            match key {
                "normal" | "normal_concat" | "reduce" | "reduce_concat" => Some(Format::Darts),
                "matrix" | "ops" | "module_adjacency" | "module_operations" => {
                    Some(Format::Nasbench101)
                }
                "space" | "cells" | "genotype" => Some(Format::Json),
                _ => None,
            }
        }
    }
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.'))
        .unwrap_or(text.len())
}

/// Whether the last line of a text is `name:` and nothing else. It looks from the end, as far as it must: a line may be
/// all of a long text.
fn line_begins(text: &str, name: &str) -> bool {
    let before = text.trim_end_matches(in_line).strip_suffix(':');
    let before = before.and_then(|t| t.strip_suffix(name));
    before
        .map(|t| t.trim_end_matches(in_line))
        .is_some_and(|t| t.is_empty() || t.ends_with(['\n', '\r']))
}

fn in_line(c: char) -> bool {
    blank(c) && !matches!(c, '\n' | '\r')
}

/// The word before a place, in the same line.
fn previous(text: &str, at: usize) -> &str {
    let before = text[..at].trim_end_matches([' ', '\t']);
    let start = before
        .rfind(|c: char| !c.is_alphanumeric() && c != '_')
        .map_or(0, |k| {
            k + before[k..].chars().next().map_or(1, char::len_utf8)
        });
    &before[start..]
}
