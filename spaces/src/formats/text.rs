//! The text that is read: from bytes, with lines and columns for messages.

use super::form::{Format, FormatError, MAX_BYTES};

/// Characters of a text that a message shows.
const SHOWN: usize = 12;

/// Where a text that is read stands in the whole text: at this byte, or somewhere after it, where it was part of a
/// string with escapes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub base: usize,
    pub exact: bool,
}

impl Place {
    pub fn of(self, at: usize) -> usize {
        self.base + if self.exact { at } else { 0 }
    }
}

/// What is wrong, and at which byte of the text. It becomes a [`FormatError`] with line and column by
/// [`Source::error`].
#[derive(Debug, Clone)]
pub(super) struct Wrong {
    pub at: usize,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Said(String),
    /// What should be there instead of what is.
    Expected(String),
    /// The text up to this place, and what is the matter with it.
    Shown(usize, String),
}

impl Wrong {
    pub fn at<T>(at: usize, why: impl Into<String>) -> Result<T, Self> {
        let what = What::Said(why.into());
        Err(Self { at, what })
    }

    pub fn expected<T>(at: usize, what: impl Into<String>) -> Result<T, Self> {
        let what = What::Expected(what.into());
        Err(Self { at, what })
    }

    /// The same in the whole text, where it was found in a part of it that stands at `place`.
    pub fn moved(self, place: Place) -> Self {
        let what = match self.what {
            What::Expected(what) if !place.exact => What::Said(format!("expected {what}")),
            what => what,
        };
        let at = place.of(self.at);
        Self { at, what }
    }

    /// The text from `at` to `end`, followed by `why`.
    pub fn shown<T>(at: usize, end: usize, why: impl Into<String>) -> Result<T, Self> {
        let what = What::Shown(end, why.into());
        Err(Self { at, what })
    }
}

/// A whole text, and where its lines begin.
pub(super) struct Source<'a> {
    pub text: &'a str,
    /// Fits: a text has at most [`MAX_BYTES`].
    lines: Vec<u32>,
}

impl<'a> Source<'a> {
    pub fn new(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, b)| *b == b'\n');
        Self {
            text,
            lines: std::iter::once(0)
                .chain(breaks.map(|(k, _)| k as u32 + 1))
                .collect(),
        }
    }

    /// The line of a byte, from 1.
    pub fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|&start| start as usize <= at)
    }

    /// The text before a byte in its line.
    fn before(&self, at: usize) -> &'a str {
        let start = self.lines[self.line(at) - 1] as usize;
        self.text.get(start..at).unwrap_or_default()
    }

    pub fn error(&self, format: Format, wrong: Wrong) -> FormatError {
        let rest = self.text.get(wrong.at..).unwrap_or_default();
        let shown = |most: usize| -> String {
            rest.chars()
                .take(most)
                .take_while(|c| !c.is_control())
                .collect()
        };
        let message = match wrong.what {
            What::Said(why) => why,
            What::Expected(what) if rest.is_empty() => {
                format!("expected {what}, but the text ends")
            }
            What::Expected(what) => format!("expected {what}, found `{}`", shown(SHOWN)),
            What::Shown(end, why) => {
                let whole = self
                    .text
                    .get(wrong.at..end)
                    .map_or(0, |t| t.chars().count());
                format!("{}{why}", shown(whole.min(4 * SHOWN)))
            }
        };
        FormatError::Text {
            format,
            line: self.line(wrong.at),
            column: self.before(wrong.at).chars().count() + 1,
            message,
        }
    }
}

/// The text of a file: UTF-8, or UTF-16 that says so or is full of zeros; without byte-order mark. Bytes that are no
/// UTF-8 stand in comments and do not matter.
///
/// # Errors
/// A file that is too long, or no text.
pub fn decode(bytes: &[u8]) -> Result<String, FormatError> {
    if bytes.len() > MAX_BYTES {
        return Err(FormatError::TooLong);
    }
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|b| unit([b[0], b[1]])).collect();
        Ok(String::from_utf16_lossy(&units))
    };
    // In English text every second byte of UTF-16 is zero.
    let zeros = |from: usize| {
        let some = bytes.iter().skip(from).step_by(2).take(256);
        let (zeros, all) = some.fold((0, 0), |(z, n), b| (z + usize::from(*b == 0), n + 1));
        all > 1 && zeros * 10 > all * 9
    };
    match bytes {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            Err(FormatError::NoText("it is UTF-32; save it as UTF-8"))
        }
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => Ok(String::from_utf8_lossy(rest).into_owned()),
        _ if zeros(1) && !zeros(0) => utf16(bytes, u16::from_le_bytes),
        _ if zeros(0) && !zeros(1) => utf16(bytes, u16::from_be_bytes),
        [b'P', b'K', ..] | [0x80, 2..=5, ..] => Err(FormatError::NoText(
            "it is a file of pickled Python objects, such as torch.save writes; print the genotype and save that",
        )),
        _ if bytes.contains(&0) => Err(FormatError::NoText("it is a binary file")),
        _ => Ok(String::from_utf8_lossy(bytes).into_owned()),
    }
}
