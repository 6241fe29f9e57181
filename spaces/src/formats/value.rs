//! What a literal says: values with their places in the text.

use super::text::{Place, Wrong};

/// A value and where it stands: byte offsets into the whole text.
#[derive(Debug, Clone)]
pub(super) struct Value {
    /// Of its first character.
    pub at: usize,
    /// After its last one.
    pub end: usize,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// `None`, `null`, `nan` and what else says nothing.
    Nothing,
    Bool(bool),
    Number(f64),
    /// What a string says, and where its content begins if it stands in the text as it is.
    Text {
        text: String,
        inner: Option<usize>,
    },
    /// A bare word, such as a variable.
    Name(String),
    /// A list, tuple, set or array.
    List(Vec<Value>),
    /// `range(first, end)`.
    Range {
        first: f64,
        end: f64,
    },
    /// A dictionary or object.
    Dict(Vec<(Value, Value)>),
    /// `name(value, …, key=value, …)` of a name that has no meaning here.
    Call {
        name: String,
        list: Vec<Value>,
        named: Vec<(Value, Value)>,
    },
}

/// A field of a dictionary or a call: its name, where that stands, and its value.
pub(super) type Field<'a> = (&'a str, usize, &'a Value);

impl Value {
    pub fn wrong<T>(&self, why: impl Into<String>) -> Result<T, Wrong> {
        Wrong::at(self.at, why)
    }

    pub fn expected<T>(&self, what: impl Into<String>) -> Result<T, Wrong> {
        Wrong::expected(self.at, what)
    }

    /// The values directly in this one.
    pub fn parts(&self) -> Vec<&Self> {
        let (list, pairs): (&[Self], &[(Self, Self)]) = match &self.kind {
            Kind::List(list) => (list, &[]),
            Kind::Dict(pairs) => (&[], pairs),
            Kind::Call { list, named, .. } => (list, named),
            _ => (&[], &[]),
        };
        let pairs = pairs.iter().flat_map(|(key, value)| [key, value]);
        list.iter().chain(pairs).collect()
    }

    /// What a copy of it costs, in values.
    pub fn weight(&self) -> usize {
        let parts: usize = self.parts().iter().map(|v| v.weight()).sum();
        1 + parts + self.word().map_or(0, |text| text.len() / size_of::<Self>())
    }

    pub fn list(&self) -> Option<&[Self]> {
        match &self.kind {
            Kind::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// A string's text or a bare word.
    pub fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text { text, .. } | Kind::Name(text) => Some(text),
            _ => None,
        }
    }

    /// Where a string's content stands.
    pub fn text_at(&self) -> usize {
        match &self.kind {
            Kind::Text { inner, .. } => inner.unwrap_or(self.at),
            _ => self.at,
        }
    }

    /// The same with what tells whether the content stands there as it is.
    pub fn text_place(&self) -> Place {
        Place {
            base: self.text_at(),
            exact: matches!(&self.kind, Kind::Text { inner: Some(_), .. }),
        }
    }

    pub fn is_nothing(&self) -> bool {
        matches!(self.kind, Kind::Nothing)
    }

    /// The number that this is; a boolean is 0 or 1.
    pub fn number(&self) -> Option<f64> {
        match self.kind {
            Kind::Number(n) => Some(n),
            Kind::Bool(b) => Some(f64::from(u8::from(b))),
            _ => None,
        }
    }

    /// A whole number from 0 to `most`, however it is written: `2`, `2.0`, `True`.
    pub fn index(&self, what: &str, most: usize) -> Result<usize, Wrong> {
        match self.number() {
            Some(n) if n > most as f64 => Wrong::shown(
                self.at,
                self.end,
                format!(" is too large, {what} is at most {most}"),
            ),
            // Within 0 and `most`, so the cast is exact.
            Some(n) if n >= 0.0 && n.fract() == 0.0 => Ok(n as usize),
            _ => self.expected(what),
        }
    }

    /// The fields of a dictionary, or those that a call gives by name.
    pub fn fields(&self) -> Vec<Field<'_>> {
        let pairs = match &self.kind {
            Kind::Dict(pairs) => pairs,
            Kind::Call { named, .. } => named,
            _ => return vec![],
        };
        pairs
            .iter()
            .filter_map(|(key, value)| Some((key.word()?, key.at, value)))
            .collect()
    }

    /// The value of the first of these fields that is there; capitals do not matter.
    pub fn field(&self, names: &[&str]) -> Option<&Self> {
        let fields = self.fields();
        names.iter().find_map(|name| {
            let field = fields.iter().find(|f| f.0.eq_ignore_ascii_case(name));
            field.map(|f| f.2)
        })
    }
}
