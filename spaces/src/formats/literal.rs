//! Python's and JSON's literals, read without running anything: numbers, strings, lists, tuples, dictionaries, and calls
//! as they stand.
//!
//! Beyond both languages it reads what NumPy and PyTorch print (`[[0 1]\n [0 0]]`, `array(…, dtype=int8)`,
//! `tensor(…)`, `np.int64(2)`), typographic quotes, and lines that a quotation or a Python prompt begins with `>`.

use super::text::{Place, Wrong};
use super::value::{Kind, Value};

/// How deep brackets may be nested.
pub(super) const MAX_DEPTH: usize = 64;
/// How many values a text may have.
pub(super) const MAX_VALUES: usize = 1_000_000;

const NOT_RUN: &str = "this is code, which is not run; write out what it makes";
/// Calls that mean the first thing in their brackets, by the last part of the name.
const TRANSPARENT: [&str; 32] = [
    "list",
    "tuple",
    "set",
    "frozenset",
    "array",
    "asarray",
    "Array",
    "matrix",
    "ndarray",
    "tensor",
    "Tensor",
    "as_tensor",
    "LongTensor",
    "IntTensor",
    "FloatTensor",
    "BoolTensor",
    "int",
    "long",
    "float",
    "bool",
    "str",
    "str_",
    "unicode",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "float32",
    "float64",
    "bool_",
    "deepcopy",
];
/// Calls that make a dictionary.
const DICTIONARIES: [&str; 6] = [
    "dict",
    "OrderedDict",
    "Namespace",
    "SimpleNamespace",
    "EasyDict",
    "edict",
];
/// What may follow a value and changes nothing that matters.
const METHODS: [&str; 11] = [
    "tolist", "astype", "copy", "cpu", "numpy", "detach", "int", "long", "float", "bool", "strip",
];
/// The quotes that end a string which begins with the first of each.
const QUOTES: [(char, &str); 6] = [
    ('\'', "'"),
    ('"', "\""),
    ('‘', "‘’"),
    ('’', "‘’"),
    ('“', "“”"),
    ('”', "“”"),
];

/// What reading may still cost.
pub(super) struct Limits {
    /// Values that may still be made.
    pub values: usize,
    /// Bytes that may still be read in vain.
    pub vain: usize,
}

impl Limits {
    pub fn of(text: &str) -> Self {
        Self {
            values: MAX_VALUES,
            vain: 4 * text.len() + (1 << 20),
        }
    }

    /// Takes so many values.
    pub fn take(&mut self, at: usize, values: usize) -> Result<(), Wrong> {
        match self.values.checked_sub(values) {
            Some(left) => self.values = left,
            None => {
                self.values = 0;
                return Wrong::at(
                    at,
                    format!("there are more than {MAX_VALUES} values up to here"),
                );
            }
        }
        Ok(())
    }
}

pub(super) struct Parser<'a> {
    text: &'a str,
    /// Byte of the text.
    pub at: usize,
    /// Whether it ended because brackets were nested too deep.
    pub too_deep: bool,
    place: Place,
    limits: &'a mut Limits,
}

type Read<T> = Result<T, Wrong>;
/// What a call gives without and with names.
type Arguments = (Vec<Value>, Vec<(Value, Value)>);

impl<'a> Parser<'a> {
    pub fn new(text: &'a str, at: usize, place: Place, limits: &'a mut Limits) -> Self {
        Self {
            text,
            at,
            too_deep: false,
            place,
            limits,
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn next(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn here(&self) -> usize {
        self.place.of(self.at)
    }

    fn take(&mut self, mark: char) -> bool {
        let there = self.next() == Some(mark);
        if there {
            self.at += mark.len_utf8();
        }
        there
    }

    fn expected<T>(&self, what: &str) -> Read<T> {
        Wrong::expected(self.here(), what)
    }

    fn made(&mut self, at: usize, kind: Kind) -> Read<Value> {
        self.limits.take(self.place.of(at), 1)?;
        Ok(Value {
            at: self.place.of(at),
            end: self.here(),
            kind,
        })
    }

    /// Passes over what separates: white space, comments, continued lines, a quotation's marks. Outside brackets it
    /// ends with the line, and before a comment: nothing can follow in that line, and looking would pass over it again
    /// and again.
    fn space(&mut self, depth: usize) {
        loop {
            let rest = self.rest();
            let long = match rest.chars().next() {
                Some('\n' | '\r') if depth == 0 => return,
                Some('\n') => 1 + prompt(&rest[1..]),
                Some(c) if blank(c) => c.len_utf8(),
                Some('\\') if rest[1..].starts_with(['\n', '\r']) => 2,
                Some('#') if depth > 0 => line(rest),
                Some('/') if depth > 0 && rest.starts_with("//") => line(rest),
                _ => return,
            };
            self.at += long;
        }
    }

    /// One value. `joined`: strings side by side are one string, as in Python.
    pub fn value(&mut self, depth: usize, joined: bool) -> Read<Value> {
        self.space(depth);
        let at = self.at;
        let mut value = self.operand(depth, joined)?;
        loop {
            let before = self.at;
            self.space(depth);
            let sign = self.here();
            match self.next() {
                Some('.') if self.method(depth)? => continue,
                Some('+') if matches!(value.kind, Kind::Text { .. } | Kind::List(_)) => {
                    self.at += 1;
                    self.space(depth);
                    let more = self.operand(depth, joined)?;
                    let kind = join(value, more, sign)?;
                    value = self.made(at, kind)?;
                }
                Some('*') if value.list().is_some() => {
                    self.at += 1;
                    self.space(depth);
                    let times = self.operand(depth, false)?;
                    let times = times.index("how often a list is repeated", MAX_VALUES)?;
                    self.limits
                        .take(sign, value.weight().saturating_mul(times))?;
                    let items = value.list().unwrap_or_default();
                    let items = std::iter::repeat_n(items, times).flatten().cloned();
                    let kind = Kind::List(items.collect());
                    value = self.made(at, kind)?;
                }
                _ => {
                    self.at = before;
                    return Ok(value);
                }
            }
        }
    }

    /// Passes over `.tolist()` and the like.
    fn method(&mut self, depth: usize) -> Read<bool> {
        let before = self.at;
        self.at += 1;
        let name = self.word();
        if !METHODS.contains(&name) || !self.take('(') {
            self.at = before;
            return Ok(false);
        }
        self.arguments(depth + 1).map(|_| true)
    }

    fn operand(&mut self, depth: usize, joined: bool) -> Read<Value> {
        if depth > MAX_DEPTH {
            self.too_deep = true;
            return Wrong::at(
                self.here(),
                format!("brackets are nested more than {MAX_DEPTH} deep"),
            );
        }
        let at = self.at;
        match self.next() {
            Some('(') => self.sequence(depth, ')'),
            Some('[') => self.sequence(depth, ']'),
            Some('{') => self.braces(depth),
            Some('*') => Wrong::at(self.here(), NOT_RUN),
            _ if self.rest().starts_with("...") || self.rest().starts_with('…') => {
                Wrong::at(self.here(), "something is left out here; give all of it")
            }
            Some(c) if c.is_ascii_digit() || matches!(c, '+' | '-' | '.') => self.number(),
            Some(_) if self.quoted() => {
                let (mut text, mut inner) = self.string()?;
                loop {
                    let before = self.at;
                    self.space(depth);
                    if !joined || !self.quoted() {
                        self.at = before;
                        break;
                    }
                    match self.string() {
                        Ok((more, _)) => text += &more,
                        Err(_) if depth == 0 => {
                            self.at = before;
                            break;
                        }
                        Err(wrong) => return Err(wrong),
                    }
                    inner = None;
                }
                self.made(at, Kind::Text { text, inner })
            }
            Some(c) if c.is_alphabetic() || c == '_' => self.named(depth),
            _ => self.expected("a value"),
        }
    }

    fn number(&mut self) -> Read<Value> {
        let at = self.at;
        let signed = self.take('-') || self.take('+');
        if signed && self.next().is_some_and(char::is_alphabetic) {
            let word = self.word();
            return if NOTHING.contains(&word) {
                self.made(at, Kind::Nothing)
            } else {
                Wrong::expected(self.place.of(at), "a value")
            };
        }
        let mut exponent = false;
        let long = self.rest().find(|c: char| {
            let more =
                c.is_ascii_digit() || matches!(c, '.' | '_') || exponent && matches!(c, '+' | '-');
            exponent = matches!(c, 'e' | 'E');
            !more && !exponent
        });
        self.at += long.unwrap_or(self.rest().len());
        let number = self.text[at..self.at].replace('_', "").parse();
        // Python 2 ends long numbers with an L.
        let _ = self.take('L');
        match number {
            Ok(n) if !self.next().is_some_and(|c| c.is_alphanumeric() || c == '_') => {
                self.made(at, Kind::Number(n))
            }
            _ => Wrong::expected(self.place.of(at), "a value"),
        }
    }

    /// Takes a name as far as it goes, with dots; empty where there is none.
    pub fn word(&mut self) -> &'a str {
        let word = word(self.rest());
        self.at += word.len();
        word
    }

    /// A constant, a variable or a call.
    fn named(&mut self, depth: usize) -> Read<Value> {
        let at = self.at;
        let word = self.word();
        let before = self.at;
        self.space(depth);
        if !self.take('(') {
            self.at = before;
            return self.made(
                at,
                match word {
                    "True" | "true" => Kind::Bool(true),
                    "False" | "false" => Kind::Bool(false),
                    _ if NOTHING.contains(&word) => Kind::Nothing,
                    _ => Kind::Name(word.into()),
                },
            );
        }
        let (list, named) = self.arguments(depth + 1)?;
        let kind = match last(word) {
            "range" | "xrange" | "arange" => range(self.place.of(at), &list)?,
            name if TRANSPARENT.contains(&name) => list
                .into_iter()
                .next()
                .map_or(Kind::List(vec![]), |first| first.kind),
            name if DICTIONARIES.contains(&name) => Kind::Dict(dictionary(list, named)?),
            _ => Kind::Call {
                name: word.into(),
                list,
                named,
            },
        };
        self.made(at, kind)
    }

    /// What stands in the brackets of a call, after the opening one.
    fn arguments(&mut self, depth: usize) -> Read<Arguments> {
        let (mut list, mut named) = (vec![], vec![]);
        loop {
            self.space(depth);
            if self.take(')') {
                return Ok((list, named));
            }
            let at = self.at;
            let word = self.word();
            let end = self.at;
            self.space(depth);
            if !word.is_empty() && self.rest().starts_with('=') && !self.rest().starts_with("==") {
                let after = std::mem::replace(&mut self.at, end);
                let key = self.made(at, Kind::Name(word.into()))?;
                self.at = after + 1;
                named.push((key, self.value(depth, true)?));
            } else {
                self.at = at;
                list.push(self.value(depth, true)?);
            }
            self.space(depth);
            if !self.take(',') && self.next() != Some(')') {
                return self.separator(')');
            }
        }
    }

    /// Whether something comes next that a printed array may have.
    fn follows(&mut self) -> bool {
        let starts = |c: char| c.is_alphanumeric() || matches!(c, '[' | '-' | '+' | '.');
        (self.quoted() || self.next().is_some_and(starts)) && !self.code()
    }

    /// Whether a word comes next that only code has.
    fn code(&mut self) -> bool {
        let before = self.at;
        let word = self.word();
        self.at = before;
        ["for", "if", "and", "or"].contains(&word)
    }

    fn separator<T>(&mut self, close: char) -> Read<T> {
        match self.next() {
            Some('*' | '/' | '%' | '-' | '<' | '>') => Wrong::at(self.here(), NOT_RUN),
            Some(_) if self.code() => Wrong::at(self.here(), NOT_RUN),
            _ => self.expected(&format!("`,` or `{close}`")),
        }
    }

    /// A list in brackets, or a tuple in parentheses. One value in parentheses without a comma is itself.
    fn sequence(&mut self, depth: usize, close: char) -> Read<Value> {
        let at = self.at;
        self.at += 1;
        let mut items: Vec<Value> = vec![];
        let mut commas = 0;
        let mut spaces = 0;
        loop {
            self.space(depth + 1);
            if self.take(close) {
                break;
            }
            if self.next().is_none() {
                return self.expected(&format!("a value or `{close}`"));
            }
            items.push(self.value(depth + 1, close == ')' || commas > 0)?);
            self.space(depth + 1);
            if self.take(',') {
                commas += 1;
                if spaces > 0 {
                    items = vec![together(std::mem::take(&mut items))?];
                    spaces = 0;
                }
            } else if self.next() != Some(close) {
                // NumPy prints its arrays without commas.
                let last = items.last().map(|v| &v.kind);
                let printed = !matches!(
                    last,
                    Some(Kind::Name(_) | Kind::Call { .. } | Kind::Dict(_))
                );
                if close == ')' || commas > 0 || !printed || !self.follows() {
                    return self.separator(close);
                }
                spaces += 1;
            }
        }
        if close == ')' && commas == 0 && items.len() == 1 {
            return Ok(items.remove(0));
        }
        self.made(at, Kind::List(items))
    }

    /// A dictionary or a set.
    fn braces(&mut self, depth: usize) -> Read<Value> {
        let at = self.at;
        self.at += 1;
        let (mut pairs, mut items) = (vec![], vec![]);
        loop {
            self.space(depth + 1);
            if self.take('}') {
                break;
            }
            if self.next().is_none() {
                return self.expected("a value or `}`");
            }
            let key = self.value(depth + 1, true)?;
            self.space(depth + 1);
            if items.is_empty() && self.take(':') {
                pairs.push((key, self.value(depth + 1, true)?));
            } else if pairs.is_empty() {
                items.push(key);
            } else {
                return self.expected("`:`");
            }
            self.space(depth + 1);
            if !self.take(',') && self.next() != Some('}') {
                return self.separator('}');
            }
        }
        let kind = if items.is_empty() {
            Kind::Dict(pairs)
        } else {
            Kind::List(items)
        };
        self.made(at, kind)
    }

    /// Whether a string begins here, maybe with Python's letters before it.
    pub fn quoted(&self) -> bool {
        let rest = self.rest();
        let letters = rest.bytes().take_while(|b| b"rRbBuUfF".contains(b)).count();
        let quote = |from: usize| {
            rest[from..]
                .chars()
                .next()
                .is_some_and(|c| QUOTES.iter().any(|q| q.0 == c))
        };
        letters <= 2 && quote(letters)
    }

    /// A string: what it says, and where its content begins if it stands there as it is.
    pub fn string(&mut self) -> Read<(String, Option<usize>)> {
        let at = self.here();
        let letters = self
            .rest()
            .bytes()
            .take_while(u8::is_ascii_alphabetic)
            .count();
        let raw = self.rest()[..letters].contains(['r', 'R']);
        self.at += letters;
        let open = self.next().unwrap_or('"');
        let closing = QUOTES.iter().find(|q| q.0 == open).map_or("\"", |q| q.1);
        let three = [open; 3].iter().collect::<String>();
        let long = self.rest().starts_with(&three);
        self.at += if long { three.len() } else { open.len_utf8() };
        let start = self.at;
        let mut text = String::new();
        let mut plain = true;
        loop {
            let Some(c) = self.next() else {
                return Wrong::at(at, "this string is not closed");
            };
            if long && self.rest().starts_with(&three) {
                self.at += three.len();
                break;
            }
            self.at += c.len_utf8();
            match c {
                _ if !long && closing.contains(c) => break,
                '\n' | '\r' if !long => {
                    return Wrong::at(at, "this string is not closed in its line");
                }
                '\\' if !raw => {
                    plain = false;
                    self.escape(&mut text);
                }
                c => text.push(c),
            }
        }
        Ok((text, plain.then(|| self.place.of(start))))
    }

    /// What a backslash and what follows it mean.
    fn escape(&mut self, text: &mut String) {
        let Some(c) = self.next() else {
            return text.push('\\');
        };
        self.at += c.len_utf8();
        let digits = match c {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        let hex = (digits > 0).then(|| self.rest().get(..digits)).flatten();
        match (c, hex.and_then(|h| u32::from_str_radix(h, 16).ok())) {
            (_, Some(code)) => {
                self.at += digits;
                text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            ('n', _) => text.push('\n'),
            ('t', _) => text.push('\t'),
            ('r', _) => text.push('\r'),
            ('\n', _) => {}
            ('\\' | '\'' | '"' | '/', _) => text.push(c),
            (c, _) => text.extend(['\\', c]),
        }
    }
}

const NOTHING: [&str; 9] = [
    "None",
    "null",
    "nan",
    "NaN",
    "inf",
    "Infinity",
    "nil",
    "undefined",
    "Null",
];

/// The name that a text begins with, with dots; empty where there is none.
pub(super) fn word(text: &str) -> &str {
    let mut end = 0;
    for (k, c) in text.char_indices() {
        let part = if end == 0 || text[..end].ends_with('.') {
            c.is_alphabetic() || c == '_'
        } else {
            c.is_alphanumeric() || matches!(c, '_' | '.')
        };
        if !part {
            break;
        }
        end = k + c.len_utf8();
    }
    text[..end].trim_end_matches('.')
}

/// The part of a name after its last dot.
pub(super) fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// White space, and the marks that editors leave unseen.
pub(super) fn blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{200b}' | '\u{feff}')
}

/// Length of the line that a text begins with.
pub(super) fn line(text: &str) -> usize {
    text.find(['\n', '\r']).unwrap_or(text.len())
}

/// Length of a quotation's or a prompt's marks at the beginning of a line.
fn prompt(text: &str) -> usize {
    if text.starts_with("... ") {
        return 3;
    }
    text.bytes().take_while(|b| *b == b'>').count()
}

fn range(at: usize, list: &[Value]) -> Read<Kind> {
    let numbers: Option<Vec<f64>> = list.iter().map(Value::number).collect();
    match numbers.as_deref() {
        Some([end]) => Ok(Kind::Range {
            first: 0.0,
            end: *end,
        }),
        Some([first, end] | [first, end, 1.0]) => Ok(Kind::Range {
            first: *first,
            end: *end,
        }),
        _ => Wrong::at(at, "a range is read as `range(first, end)`"),
    }
}

/// `dict(a=1)`, `dict({…})` and `OrderedDict([('a', 1)])`.
fn dictionary(list: Vec<Value>, named: Vec<(Value, Value)>) -> Read<Vec<(Value, Value)>> {
    let mut pairs = vec![];
    for value in list {
        match value.kind {
            Kind::Dict(more) => pairs.extend(more),
            Kind::List(items) => {
                for item in items {
                    match item.kind {
                        Kind::List(pair) if pair.len() == 2 => {
                            let mut pair = pair.into_iter();
                            pairs.extend(pair.next().zip(pair.next()));
                        }
                        _ => return Wrong::expected(item.at, "a pair of key and value"),
                    }
                }
            }
            _ => return Wrong::expected(value.at, "key and value"),
        }
    }
    pairs.extend(named);
    Ok(pairs)
}

/// Two strings or lists with a plus between them.
fn join(first: Value, second: Value, plus: usize) -> Read<Kind> {
    match (first.kind, second.kind) {
        (Kind::Text { text, .. }, Kind::Text { text: more, .. }) => Ok(Kind::Text {
            text: text + &more,
            inner: None,
        }),
        (Kind::List(mut items), Kind::List(more)) => {
            items.extend(more);
            Ok(Kind::List(items))
        }
        _ => Wrong::at(plus, NOT_RUN),
    }
}

/// Strings side by side before a comma are one string.
fn together(items: Vec<Value>) -> Read<Value> {
    let mut items = items.into_iter();
    let Some(mut whole) = items.next() else {
        return Wrong::at(0, NOT_RUN);
    };
    for item in items {
        let at = item.at;
        if !matches!(
            (&whole.kind, &item.kind),
            (Kind::Text { .. }, Kind::Text { .. })
        ) {
            return Wrong::at(at, "here a comma is missing");
        }
        whole = Value {
            at: whole.at,
            end: item.end,
            kind: join(whole, item, at)?,
        };
    }
    Ok(whole)
}
