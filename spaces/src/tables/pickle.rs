//! Python pickles of one shape: `{text: {text: [number, …], …}, …}`.
//!
//! A general reader builds whatever a file asks for, as deep as it asks, and a hostile file overflows the stack. This
//! one knows the dozen instructions that such a dictionary is written with, in protocols 2 to 5; it can neither call
//! anything nor nest deeper than the shape.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// The most values that may wait on the stack; Python's pickler leaves two thousand there.
const DEEPEST: usize = 1 << 21;

/// What the file holds.
pub(super) type Tables = BTreeMap<String, BTreeMap<String, Vec<f64>>>;

/// A value on the stack.
#[derive(Debug)]
enum Item {
    Mark,
    Text(Rc<str>),
    Number(f64),
    List(Vec<f64>),
    /// A dictionary, empty or of lists.
    Inner(BTreeMap<String, Vec<f64>>),
    /// A dictionary of those.
    Outer(Tables),
}

/// Reads a pickle.
///
/// # Errors
/// What is wrong, and at which byte.
pub(super) fn read(bytes: &[u8]) -> Result<Tables, String> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: vec![],
        memo: HashMap::new(),
        memoized: 0,
    };
    loop {
        let at = machine.at;
        match machine.step() {
            Ok(None) => {}
            Ok(Some(tables)) => return Ok(tables),
            Err(why) => return Err(format!("byte {at}: {why}")),
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Item>,
    /// Texts are the only values that are referred to again.
    memo: HashMap<u32, Rc<str>>,
    /// How many values have been numbered in order.
    memoized: u32,
}

impl<'a> Machine<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let taken = self
            .at
            .checked_add(n)
            .and_then(|end| self.bytes.get(self.at..end));
        self.at = self.at.saturating_add(n);
        taken.ok_or_else(|| "the file is truncated".into())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| "the file is truncated".into())
    }

    fn pop(&mut self) -> Result<Item, String> {
        self.stack.pop().ok_or_else(|| "a value is missing".into())
    }

    /// The values above the last mark.
    fn pop_to_mark(&mut self) -> Result<Vec<Item>, String> {
        let mark = self.stack.iter().rposition(|i| matches!(i, Item::Mark));
        let mut above = self.stack.split_off(mark.ok_or("a mark is missing")?);
        above.remove(0);
        Ok(above)
    }

    fn text(&mut self, length: usize) -> Result<(), String> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|e| e.to_string())?;
        self.stack.push(Item::Text(text.into()));
        Ok(())
    }

    fn remember(&mut self, slot: u32) {
        if let Some(Item::Text(text)) = self.stack.last() {
            self.memo.insert(slot, text.clone());
        }
    }

    fn recall(&mut self, slot: u32) -> Result<(), String> {
        let text = self
            .memo
            .get(&slot)
            .ok_or("it refers to what is no text")?
            .clone();
        self.stack.push(Item::Text(text));
        Ok(())
    }

    fn append(&mut self, items: Vec<Item>) -> Result<(), String> {
        let Some(Item::List(list)) = self.stack.last_mut() else {
            return Err("there is no list to append to".into());
        };
        for item in items {
            match item {
                Item::Number(x) => list.push(x),
                _ => return Err("a list holds something other than numbers".into()),
            }
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Item>) -> Result<(), String> {
        let mut items = items.into_iter();
        while let Some(key) = items.next() {
            let Item::Text(key) = key else {
                return Err("a key is no text".into());
            };
            // What is empty may become either kind.
            if let (Some(Item::Inner(_)), Some(slot)) =
                (items.as_slice().first(), self.stack.last_mut())
                && matches!(slot, Item::Inner(empty) if empty.is_empty())
            {
                *slot = Item::Outer(BTreeMap::new());
            }
            match (self.stack.last_mut(), items.next()) {
                (Some(Item::Inner(inner)), Some(Item::List(list))) => {
                    inner.insert(key.to_string(), list);
                }
                (Some(Item::Outer(outer)), Some(Item::Inner(inner))) => {
                    outer.insert(key.to_string(), inner);
                }
                _ => return Err("it is no dictionary of dictionaries of lists of numbers".into()),
            }
        }
        Ok(())
    }

    /// One instruction; the result at the last one.
    fn step(&mut self) -> Result<Option<Tables>, String> {
        let [instruction] = self.array()?;
        if self.stack.len() >= DEEPEST {
            return Err("it puts more than two million values on the stack".into());
        }
        match instruction {
            // PROTO, FRAME
            0x80 => self.take(1).map(|_| ())?,
            0x95 => self.take(8).map(|_| ())?,
            b'(' => self.stack.push(Item::Mark),
            b'}' => self.stack.push(Item::Inner(BTreeMap::new())),
            b']' => self.stack.push(Item::List(vec![])),
            // BINFLOAT, BININT, BININT1, BININT2
            b'G' => {
                let x = f64::from_be_bytes(self.array()?);
                self.stack.push(Item::Number(x));
            }
            b'J' => {
                let x = i32::from_le_bytes(self.array()?);
                self.stack.push(Item::Number(x.into()));
            }
            b'K' => {
                let [x] = self.array()?;
                self.stack.push(Item::Number(x.into()));
            }
            b'M' => {
                let x = u16::from_le_bytes(self.array()?);
                self.stack.push(Item::Number(x.into()));
            }
            // SHORT_BINUNICODE, BINUNICODE
            0x8c => {
                let [length] = self.array()?;
                self.text(length.into())?;
            }
            b'X' => {
                let length = u32::from_le_bytes(self.array()?);
                self.text(length as usize)?;
            }
            // MEMOIZE numbers every value; only those of texts are ever looked up.
            0x94 => {
                let slot = self.memoized;
                self.memoized = self.memoized.wrapping_add(1);
                self.remember(slot);
            }
            b'q' => {
                let [slot] = self.array()?;
                self.remember(slot.into());
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.remember(slot);
            }
            b'h' => {
                let [slot] = self.array()?;
                self.recall(slot.into())?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.recall(slot)?;
            }
            // APPEND, APPENDS, SETITEM, SETITEMS
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(items)?;
            }
            b'.' => {
                return match self.pop()? {
                    Item::Outer(tables) => Ok(Some(tables)),
                    _ => Err("it is no dictionary of dictionaries of lists of numbers".into()),
                };
            }
            other => {
                return Err(format!(
                    "instruction 0x{other:02x} is for something other than numbers and texts"
                ));
            }
        }
        Ok(None)
    }
}
