//! Inputs out of a corpus: each is a function of a seed and its number, so that any of them can be made again.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde_json::{Map, Value};

use super::codec::Codec;

/// The most bytes of an input, unless a seed is larger.
const LARGEST: usize = 1 << 20;

/// Numbers at the ends of ranges, as text.
#[rustfmt::skip]
const NUMBERS: [&str; 26] = [
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "127",
    "128",
    "255",
    "256",
    "32767",
    "65535",
    "65536",
    "2147483647",
    "-2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "-1e-320",
    "0.1",
    "1e12",
    "400000000",
];

/// Whole numbers at the ends of ranges.
#[rustfmt::skip]
const ENDS: [i64; 16] = [
    0,
    1,
    -1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x7fff,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX,
    i64::MIN,
];

/// Text that escapes where it should not.
#[rustfmt::skip]
const HOSTILE: [&str; 12] = [
    "",
    "\u{1b}[31m",
    "<script>",
    "]]>",
    "\0",
    "\u{feff}",
    "../../x",
    "a.b.c",
    "\u{202e}",
    "&amp;\"'",
    "\u{fffe}",
    "\r\n",
];

/// Makes inputs.
pub struct Mutator<'a> {
    /// What inputs are made of.
    pub corpus: &'a [Vec<u8>],
    /// Words of the format.
    pub words: &'a [&'a [u8]],
    /// How its bytes are packed.
    pub codec: Codec,
}

impl Mutator<'_> {
    /// An input.
    pub fn input(&self, rng: &mut impl Rng) -> Vec<u8> {
        let Some(base) = self.corpus.choose(rng) else {
            return vec![];
        };
        if rng.random_bool(0.15) {
            return self.bytes(base.clone(), rng);
        }
        let Some(inner) = self.codec.unpack(base) else {
            return self.bytes(base.clone(), rng);
        };
        let tree = self.codec.tree(&inner).filter(|_| rng.random_bool(0.6));
        let mutated = match tree {
            Some(mut tree) => {
                for _ in 0..rounds(rng) {
                    mutate_tree(&mut tree, rng);
                    // Copies of copies would be many.
                    if weight(&tree) > LARGEST {
                        break;
                    }
                }
                self.codec.untree(&inner, &tree).unwrap_or(inner)
            }
            None => self.bytes(inner, rng),
        };
        self.codec.pack(base, mutated)
    }

    /// A few random changes of bytes.
    fn bytes(&self, mut bytes: Vec<u8>, rng: &mut impl Rng) -> Vec<u8> {
        let most = LARGEST.max(bytes.len());
        for _ in 0..rounds(rng) {
            self.change(&mut bytes, rng);
            bytes.truncate(most);
        }
        bytes
    }

    fn change(&self, bytes: &mut Vec<u8>, rng: &mut impl Rng) {
        let len = bytes.len();
        let at = rng.random_range(0..=len);
        let some =
            |rng: &mut dyn Rng| at..len.min(at + 1 + rng.random_range(0..(len / 4).clamp(1, 64)));
        match rng.random_range(0..14) {
            0 if len > 0 => bytes[at.min(len - 1)] ^= 1 << rng.random_range(0..8),
            1 if len > 0 => bytes[at.min(len - 1)] = rng.random(),
            2 => {
                let new: Vec<u8> = (0..rng.random_range(1..8)).map(|_| rng.random()).collect();
                bytes.splice(at..at, new);
            }
            3 => drop(bytes.drain(some(rng))),
            4 => bytes.truncate(at),
            5 | 6 => {
                // A block again, a few or very many times.
                let block = bytes[some(rng)].to_vec();
                let times = match rng.random_range(0..20) {
                    0 => LARGEST / block.len().max(1),
                    1..4 => 3000,
                    _ => rng.random_range(1..20),
                };
                let new = block.repeat(times.min(LARGEST / block.len().max(1)));
                bytes.splice(at..at, new);
            }
            7 => {
                let other = self.corpus.choose(rng).and_then(|o| self.codec.unpack(o));
                let other = other.unwrap_or_default();
                let from = rng.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            8 | 9 => {
                let word = self.words.choose(rng).copied().unwrap_or(b"\n");
                let end = match rng.random_bool(0.5) {
                    true => at,
                    false => len.min(at + word.len()),
                };
                bytes.splice(at..end, word.iter().copied());
            }
            10 => replace_number(bytes, at, rng),
            11 => {
                // A binary number.
                let end = ENDS.choose(rng).copied().unwrap_or(0);
                let width = [1, 2, 4, 8][rng.random_range(0..4)].min(len - at);
                let new = match rng.random_bool(0.5) {
                    true => end.to_le_bytes()[..width].to_vec(),
                    false => end.to_be_bytes()[8 - width..].to_vec(),
                };
                bytes.splice(at..at + width, new);
            }
            12 => {
                // Deep nesting.
                let open: &[u8] =
                    [&b"["[..], b"(", b"{\"a\":", b"a.", b"|", b"[["][rng.random_range(0..6)];
                let times = [8, 200, 20_000][rng.random_range(0..3)];
                bytes.splice(at..at, open.repeat(times));
            }
            _ => {
                // Two parts change places.
                let (a, b) = (rng.random_range(0..=len), rng.random_range(0..=len));
                let (a, b) = (a.min(b), a.max(b));
                bytes[a..b].rotate_left(if a < b { rng.random_range(0..b - a) } else { 0 });
            }
        }
    }
}

/// One change mostly, at times many.
fn rounds(rng: &mut impl Rng) -> usize {
    let mut n = 1;
    while n < 32 && rng.random_bool(0.45) {
        n += 1;
    }
    n
}

/// Another number in the place of the next one after `at`.
fn replace_number(bytes: &mut Vec<u8>, at: usize, rng: &mut impl Rng) {
    let digit = |b: &u8| b.is_ascii_digit();
    let Some(from) = bytes[at..].iter().position(digit).map(|i| at + i) else {
        return;
    };
    let end = bytes[from..]
        .iter()
        .position(|b| !digit(b))
        .map_or(bytes.len(), |i| from + i);
    let new = NUMBERS.choose(rng).copied().unwrap_or("0");
    bytes.splice(from..end, new.bytes());
}

/// A change somewhere in a tree.
fn mutate_tree(value: &mut Value, rng: &mut impl Rng) {
    let deeper = rng.random_bool(0.8);
    match value {
        Value::Object(map) if deeper && !map.is_empty() => {
            let at = rng.random_range(0..map.len());
            if rng.random_bool(0.75) {
                if let Some((_, inner)) = map.iter_mut().nth(at) {
                    mutate_tree(inner, rng);
                }
                return;
            }
            change_keys(map, at, rng);
        }
        Value::Array(list) if deeper && !list.is_empty() => {
            let at = rng.random_range(0..list.len());
            match rng.random_range(0..8) {
                0 => drop(list.remove(at)),
                1 => list.insert(at, list[at].clone()),
                2 => {
                    let new = vec![list[at].clone(); copies([2, 50, 3000], &list[at], rng)];
                    list.splice(at..at, new);
                }
                3 => {
                    let other = rng.random_range(0..list.len());
                    list.swap(at, other);
                }
                _ => mutate_tree(&mut list[at], rng),
            }
        }
        // JSON inside of JSON, as in the header of a checkpoint.
        Value::String(text) if text.starts_with('{') && deeper => {
            if let Ok(mut inner) = serde_json::from_str(text) {
                mutate_tree(&mut inner, rng);
                *text = inner.to_string();
            }
        }
        leaf => *leaf = other_leaf(leaf, rng),
    }
}

/// About how many bytes a tree takes.
fn weight(tree: &Value) -> usize {
    let inside = match tree {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(k, v)| 64 + k.len() + weight(v)).sum(),
        _ => 0,
    };
    32 + inside
}

/// How often something is there again: one of three numbers, and no more than fits into an input.
fn copies(numbers: [usize; 3], of: &Value, rng: &mut impl Rng) -> usize {
    numbers[rng.random_range(0..3)].min((LARGEST / weight(of)).max(1))
}

fn change_keys(map: &mut Map<String, Value>, at: usize, rng: &mut impl Rng) {
    let Some(key) = map.keys().nth(at).cloned() else {
        return;
    };
    match rng.random_range(0..4) {
        0 => drop(map.remove(&key)),
        1 => {
            let new = HOSTILE.choose(rng).copied().unwrap_or_default();
            let value = map.remove(&key).unwrap_or_default();
            map.insert(format!("{key}{new}"), value);
        }
        2 => {
            let value = map[&key].clone();
            for i in 0..copies([1, 30, 2000], &value, rng) {
                map.insert(format!("{key}{i}"), value.clone());
            }
        }
        _ => {
            let other = rng.random_range(0..map.len());
            let value = map.values().nth(other).cloned().unwrap_or_default();
            map.insert(key, value);
        }
    }
}

fn other_leaf(old: &Value, rng: &mut impl Rng) -> Value {
    match (old, rng.random_range(0..10)) {
        (Value::Number(_), 0..7) | (_, 0) => {
            let text = NUMBERS.choose(rng).copied().unwrap_or("0");
            serde_json::from_str(text).unwrap_or(Value::Null)
        }
        (Value::Number(n), 7) => {
            let near = n.as_f64().unwrap_or(0.0) + [-1.0, 1.0, 0.5][rng.random_range(0..3)];
            Value::from(near)
        }
        (Value::String(text), 1..4) => {
            let hostile = HOSTILE.choose(rng).copied().unwrap_or_default();
            Value::from(format!("{hostile}{text}"))
        }
        (Value::String(text), 4) => Value::from(text.repeat(copies([2, 100, 5000], old, rng))),
        (_, 5) => Value::from(HOSTILE.choose(rng).copied().unwrap_or_default()),
        (_, 6) => Value::Array(vec![old.clone(); rng.random_range(0..4)]),
        (_, 7) => {
            let mut deep = old.clone();
            for _ in 0..[1, 20, 100][rng.random_range(0..3)] {
                deep = match rng.random_bool(0.5) {
                    true => Value::Array(vec![deep]),
                    false => Value::Object(Map::from_iter([("a".to_owned(), deep)])),
                };
            }
            deep
        }
        (_, 8) => Value::Bool(rng.random_bool(0.5)),
        _ => Value::Null,
    }
}
