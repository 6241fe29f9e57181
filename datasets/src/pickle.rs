//! Python pickles of protocols 2 to 5, read without running anything: a call is kept as what would be called with what.
//!
//! A file decides what a pickle builds, so everything here is bounded by the file's length and [`MOST_INSTRUCTIONS`]:
//! values lie flat in a list and refer to each other by number, so that nothing nests; what is recalled from the memo
//! is not copied; texts and bytes stay in the file. Whoever reads the values goes only as deep as what it looks for,
//! and must say how many of them it takes.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;

/// The most instructions of a pickle: a batch of CIFAR-100 has half a million.
const MOST_INSTRUCTIONS: usize = 4_000_000;

/// The longest text that may be a name.
const LONGEST_NAME: usize = 100;

/// Number of a value in a [`Pickle`].
type Id = u32;

/// What a pickle holds.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    root: Id,
}

#[derive(Debug)]
enum Node<'a> {
    /// None, a float, a set: nothing that is looked at.
    Other,
    Bool(bool),
    Int(i64),
    /// A string of Python 2, or bytes.
    Bytes(&'a [u8]),
    Text(&'a str),
    /// A list or a tuple.
    Items(Vec<Id>),
    Pairs(Vec<(Id, Id)>),
    /// Name of a function or class, without its module.
    Global(&'a str),
    /// What a function or class would make of arguments, and the state that it would be given then.
    Made {
        by: Id,
        from: Id,
        state: Option<Id>,
    },
}

/// A value of a pickle.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Value<'p, 'a> {
    pickle: &'p Pickle<'a>,
    id: Id,
}

impl<'p, 'a> Value<'p, 'a> {
    fn node(self) -> &'p Node<'a> {
        self.at(self.id)
    }

    fn at(self, id: Id) -> &'p Node<'a> {
        self.pickle.nodes.get(id as usize).unwrap_or(&Node::Other)
    }

    fn other(self, id: Id) -> Self {
        Self { id, ..self }
    }

    /// A truth value.
    pub fn bool(self) -> Option<bool> {
        match self.node() {
            Node::Bool(b) => Some(*b),
            _ => None,
        }
    }

    /// An integer.
    pub fn int(self) -> Option<i64> {
        match self.node() {
            Node::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// A name: a text of at most [`LONGEST_NAME`] bytes, however Python 2 or 3 pickles it.
    pub fn name(self) -> Option<&'a str> {
        let short = |bytes: &[u8]| bytes.len() <= LONGEST_NAME;
        match self.node() {
            Node::Text(text) => Some(*text).filter(|t| short(t.as_bytes())),
            Node::Bytes(bytes) => std::str::from_utf8(Some(*bytes).filter(|b| short(b))?).ok(),
            _ => {
                let text = self.encoded().filter(|t| short(t.as_bytes()))?;
                Some(text).filter(|t| t.is_ascii())
            }
        }
    }

    /// Bytes.
    pub fn bytes(self) -> Option<Cow<'a, [u8]>> {
        if let Node::Bytes(bytes) = self.node() {
            return Some(Cow::Borrowed(*bytes));
        }
        let bytes = self.encoded()?.chars().map(|c| u8::try_from(u32::from(c)));
        Some(Cow::Owned(bytes.collect::<Result<_, _>>().ok()?))
    }

    /// Before protocol 3, Python 3 writes bytes as a text that `_codecs.encode` would turn into Latin-1: that text.
    fn encoded(self) -> Option<&'a str> {
        let ("encode", from, _) = self.made()? else {
            return None;
        };
        // What this looks at is not looked into: a file may nest such calls without end.
        let Node::Items(items) = from.node() else {
            return None;
        };
        match items.as_slice() {
            [text, coding] => match (self.at(*text), self.at(*coding)) {
                (Node::Text(text), Node::Text("latin1") | Node::Bytes(b"latin1")) => Some(*text),
                _ => None,
            },
            _ => None,
        }
    }

    /// The items of a list or a tuple.
    pub fn items(self) -> Option<Vec<Self>> {
        match self.node() {
            Node::Items(items) => Some(items.iter().map(|id| self.other(*id)).collect()),
            _ => None,
        }
    }

    /// Whether this is a dictionary.
    pub fn is_dict(self) -> bool {
        matches!(self.node(), Node::Pairs(_))
    }

    /// What a dictionary has under a name.
    pub fn get(self, name: &str) -> Option<Self> {
        let Node::Pairs(pairs) = self.node() else {
            return None;
        };
        let mut pairs = pairs.iter().rev();
        let (_, value) = pairs.find(|(key, _)| self.other(*key).name() == Some(name))?;
        Some(self.other(*value))
    }

    /// Name of the function that would make this, without its module, its arguments, and its state.
    pub fn made(self) -> Option<(&'a str, Self, Option<Self>)> {
        let Node::Made { by, from, state } = self.node() else {
            return None;
        };
        let Node::Global(name) = self.at(*by) else {
            return None;
        };
        Some((*name, self.other(*from), state.map(|s| self.other(s))))
    }
}

/// Reads a pickle.
///
/// # Errors
/// What is wrong, and at which byte.
pub(crate) fn read(bytes: &[u8]) -> Result<Pickle<'_>, String> {
    if bytes.first() != Some(&0x80) {
        return Err("is no pickle of protocol 2 or later".into());
    }
    let mut machine = Machine {
        bytes,
        at: 0,
        pickle: Pickle {
            nodes: vec![],
            root: 0,
        },
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
        memoized: 0,
    };
    for _ in 0..MOST_INSTRUCTIONS {
        let at = machine.at;
        match machine.step() {
            Ok(false) => {}
            Ok(true) => return Ok(machine.pickle),
            Err(why) => return Err(format!("is no pickle that can be read: byte {at}: {why}")),
        }
    }
    Err("is a pickle of more than 4 million instructions, which no batch has".into())
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    pickle: Pickle<'a>,
    stack: Vec<Id>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// How many values have been numbered in order.
    memoized: u32,
}

/// A step's failure.
type Step<T = ()> = Result<T, String>;

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let taken = self
            .at
            .checked_add(n)
            .and_then(|end| self.bytes.get(self.at..end));
        self.at = self.at.saturating_add(n);
        taken.ok_or_else(|| "the file is truncated".into())
    }

    fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| "the file is truncated".into())
    }

    fn byte(&mut self) -> Step<usize> {
        let [byte] = self.array()?;
        Ok(byte.into())
    }

    fn u32(&mut self) -> Step<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Step<usize> {
        let length = u64::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|e| e.to_string())
    }

    /// A line of text, without its end.
    fn line(&mut self) -> Step<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|&b| b == b'\n')
            .ok_or("a line has no end")?;
        let line = self.take(end)?;
        self.at += 1;
        std::str::from_utf8(line).map_err(|e| e.to_string())
    }

    fn push(&mut self, node: Node<'a>) {
        self.stack.push(self.pickle.nodes.len() as Id);
        self.pickle.nodes.push(node);
    }

    fn bytes(&mut self, length: usize) -> Step {
        let bytes = self.take(length)?;
        self.push(Node::Bytes(bytes));
        Ok(())
    }

    fn text(&mut self, length: usize) -> Step {
        let text = std::str::from_utf8(self.take(length)?).map_err(|e| e.to_string())?;
        self.push(Node::Text(text));
        Ok(())
    }

    /// An integer of so many bytes.
    fn long(&mut self, length: usize) -> Step {
        let bytes = self.take(length)?;
        let sign = if bytes.last().is_some_and(|b| b & 0x80 != 0) {
            0xff
        } else {
            0
        };
        self.push(if length > 8 {
            Node::Other
        } else {
            let mut wide = [sign; 8];
            wide[..length].copy_from_slice(bytes);
            Node::Int(i64::from_le_bytes(wide))
        });
        Ok(())
    }

    /// The lowest place of the stack that may be taken: what lies under a mark waits for that mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Id> {
        if self.stack.len() <= self.floor() {
            return Err("a value is missing".into());
        }
        self.stack
            .pop()
            .ok_or_else(|| "a value is missing".to_owned())
    }

    /// The last `n` values.
    fn pops(&mut self, n: usize) -> Step<Vec<Id>> {
        let from = self.stack.len().checked_sub(n);
        let from = from
            .filter(|from| *from >= self.floor())
            .ok_or("a value is missing")?;
        Ok(self.stack.split_off(from))
    }

    /// The values above the last mark.
    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Step<Id> {
        let top = self.stack.len().checked_sub(1);
        let top = top.filter(|top| *top >= self.floor());
        top.and_then(|top| self.stack.get(top).copied())
            .ok_or_else(|| "a value is missing".into())
    }

    fn top_node(&mut self) -> Step<&mut Node<'a>> {
        let top = self.top()?;
        let node = self.pickle.nodes.get_mut(top as usize);
        node.ok_or_else(|| "a value is missing".into())
    }

    fn remember(&mut self, slot: u32) -> Step {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Step {
        let id = self
            .memo
            .get(&slot)
            .ok_or("it refers to what is not there")?;
        self.stack.push(*id);
        Ok(())
    }

    fn append(&mut self, more: Vec<Id>) -> Step {
        match self.top_node()? {
            Node::Items(items) => items.extend(more),
            // A set.
            Node::Other => {}
            _ => return Err("there is no list to append to".into()),
        }
        Ok(())
    }

    fn set(&mut self, more: Vec<Id>) -> Step {
        let (more, odd) = more.as_chunks::<2>();
        match self.top_node()? {
            Node::Pairs(pairs) if odd.is_empty() => {
                pairs.extend(more.iter().map(|[key, value]| (*key, *value)));
                Ok(())
            }
            Node::Pairs(_) => Err("a key has no value".into()),
            _ => Err("there is no dictionary to fill".into()),
        }
    }

    fn make(&mut self) -> Step {
        let (from, by) = (self.pop()?, self.pop()?);
        self.push(Node::Made {
            by,
            from,
            state: None,
        });
        Ok(())
    }

    /// One instruction; whether it was the last one.
    fn step(&mut self) -> Step<bool> {
        let [instruction] = self.array()?;
        match instruction {
            // PROTO, FRAME, NONE, NEWTRUE, NEWFALSE
            0x80 => self.take(1).map(|_| ())?,
            0x95 => self.take(8).map(|_| ())?,
            b'N' => self.push(Node::Other),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            // BININT, BININT1, BININT2, LONG1, LONG4, BINFLOAT
            b'J' => {
                let int = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(int.into()));
            }
            b'K' => self.long_unsigned::<1>()?,
            b'M' => self.long_unsigned::<2>()?,
            0x8a => self.byte().and_then(|n| self.long(n))?,
            0x8b => self.u32().and_then(|n| self.long(n as usize))?,
            b'G' => {
                self.take(8)?;
                self.push(Node::Other);
            }
            // SHORT_BINSTRING, BINSTRING, SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'U' | b'C' => self.byte().and_then(|n| self.bytes(n))?,
            b'T' | b'B' => self.u32().and_then(|n| self.bytes(n as usize))?,
            0x8e | 0x96 => self.u64().and_then(|n| self.bytes(n))?,
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => self.byte().and_then(|n| self.text(n))?,
            b'X' => self.u32().and_then(|n| self.text(n as usize))?,
            0x8d => self.u64().and_then(|n| self.text(n))?,
            // MARK, EMPTY_LIST, EMPTY_TUPLE, EMPTY_DICT, EMPTY_SET
            b'(' => self.marks.push(self.stack.len()),
            b']' | b')' => self.push(Node::Items(vec![])),
            b'}' => self.push(Node::Pairs(vec![])),
            0x8f => self.push(Node::Other),
            // TUPLE, LIST, FROZENSET, TUPLE1, TUPLE2, TUPLE3
            b't' | b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Node::Items(items));
            }
            0x85..=0x87 => {
                let items = self.pops(usize::from(instruction - 0x84))?;
                self.push(Node::Items(items));
            }
            // APPEND, APPENDS, ADDITEMS, SETITEM, SETITEMS
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let pair = self.pops(2)?;
                self.set(pair)?;
            }
            b'u' => {
                let pairs = self.pop_to_mark()?;
                self.set(pairs)?;
            }
            // MEMOIZE, BINPUT, LONG_BINPUT, BINGET, LONG_BINGET
            0x94 => {
                let slot = self.memoized;
                self.memoized = self.memoized.wrapping_add(1);
                self.remember(slot)?;
            }
            b'q' => self.byte().and_then(|slot| self.remember(slot as u32))?,
            b'r' => self.u32().and_then(|slot| self.remember(slot))?,
            b'h' => self.byte().and_then(|slot| self.recall(slot as u32))?,
            b'j' => self.u32().and_then(|slot| self.recall(slot))?,
            // POP, POP_MARK
            b'0' => self.pop().map(|_| ())?,
            b'1' => self.pop_to_mark().map(|_| ())?,
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (_module, name) = (self.line()?, self.line()?);
                self.push(Node::Global(name));
            }
            0x93 => {
                let (id, _module) = (self.pop()?, self.pop()?);
                let pickle = &self.pickle;
                let name = Value { pickle, id }.name().ok_or("a name is no text")?;
                self.push(Node::Global(name));
            }
            // REDUCE, NEWOBJ, BUILD
            b'R' | 0x81 => self.make()?,
            b'b' => {
                let given = self.pop()?;
                if let Node::Made { state, .. } = self.top_node()? {
                    *state = Some(given);
                }
            }
            b'.' => {
                self.pickle.root = self.pop()?;
                return Ok(true);
            }
            other => {
                return Err(format!(
                    "instruction 0x{other:02x} is for something other than numbers, texts, lists, dictionaries and arrays"
                ));
            }
        }
        Ok(false)
    }

    fn long_unsigned<const N: usize>(&mut self) -> Step {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(self.take(N)?);
        self.push(Node::Int(i64::from_le_bytes(wide)));
        Ok(())
    }
}

impl<'a> Pickle<'a> {
    /// What the whole pickle is.
    pub fn root(&self) -> Value<'_, 'a> {
        Value {
            pickle: self,
            id: self.root,
        }
    }
}
