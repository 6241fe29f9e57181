//! The benchmark's graph-invariant hash.

use md5::{Digest, Md5};

use super::spec::ModelSpec;

/// Length of an MD5 digest in hexadecimal digits.
const DIGITS: usize = 32;

/// The key of a cell: the bytes of an MD5 digest.
pub type Key = [u8; DIGITS / 2];

/// An MD5 digest in lower-case hexadecimal digits. Ordered as its text is.
pub(super) type Hex = [u8; DIGITS];

impl ModelSpec {
    /// The benchmark's key of this cell: 32 lower-case hexadecimal digits, the same for isomorphic
    /// cells and for those only.
    #[must_use]
    pub fn hash(&self) -> String {
        hash(self).iter().copied().map(char::from).collect()
    }

    /// The same as the bytes that the digits stand for.
    #[must_use]
    pub fn digest(&self) -> Key {
        let hex = hash(self);
        let digit = |d: u8| if d < b'a' { d - b'0' } else { d - b'a' + 10 };
        std::array::from_fn(|i| 16 * digit(hex[2 * i]) + digit(hex[2 * i + 1]))
    }
}

/// The hash under which NAS-Bench-101 files `spec`: equal for two cells exactly when they are
/// isomorphic (so on all of the space, although MD5 promises it for no larger one).
///
/// Every vertex starts as the digest of its out-degree, in-degree and label; then, as many times as
/// there are vertices, it becomes the digest of its predecessors' sorted digests, its successors'
/// and its own. The digest of all of them, sorted, is the hash. Texts are spelled as Python spells
/// tuples and lists, because the published table was keyed so.
pub(super) fn hash(spec: &ModelSpec) -> Hex {
    let n = spec.vertices();
    let mut text = Vec::with_capacity(2 + DIGITS * n);
    let mut hashes: Vec<Hex> = (0..n)
        .map(|v| {
            let label = match v {
                0 => -1,
                _ if v == n - 1 => -2,
                _ => i32::from(spec.operations()[v - 1].index()),
            };
            let (out, into) = (spec.successors(v).count(), spec.predecessors(v).count());
            digest(format!("({out}, {into}, {label})").as_bytes())
        })
        .collect();
    for _ in 0..n {
        hashes = (0..n)
            .map(|v| {
                text.clear();
                append_sorted(&mut text, spec.predecessors(v).map(|w| hashes[w]));
                text.push(b'|');
                append_sorted(&mut text, spec.successors(v).map(|w| hashes[w]));
                text.push(b'|');
                text.extend_from_slice(&hashes[v]);
                digest(&text)
            })
            .collect();
    }
    hashes.sort_unstable();
    text.clear();
    for hash in &hashes {
        text.extend_from_slice(if text.is_empty() { b"['" } else { b", '" });
        text.extend_from_slice(hash);
        text.push(b'\'');
    }
    text.push(b']');
    digest(&text)
}

fn append_sorted(text: &mut Vec<u8>, hashes: impl Iterator<Item = Hex>) {
    let mut hashes: Vec<Hex> = hashes.collect();
    hashes.sort_unstable();
    text.extend_from_slice(hashes.as_flattened());
}

fn digest(text: &[u8]) -> Hex {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; DIGITS];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(Md5::digest(text)) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    hex
}
