//! What lies between the bytes of a file and what it says: compression, checksums, lengths. Mutations are made inside,
//! and the outside fits again, or nearly all of them would end at a checksum.

use std::io::{Read, Write};

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, Crc};
use serde_json::Value;

/// How the bytes of a format are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As they are.
    Plain,
    /// As they are; JSON.
    Json,
    /// As they are; TOML.
    Toml,
    /// gzip, where they begin so.
    Gzip,
    /// PNG: a checksum for each chunk.
    Png,
    /// TFRecord: checksums of each record's length and data, maybe within gzip.
    TfRecord,
    /// safetensors: the length of the JSON in front, and nasfw's own digests.
    Safetensors,
}

impl Codec {
    /// The bytes inside.
    pub fn unpack(self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Self::Gzip | Self::TfRecord if bytes.starts_with(&[0x1f, 0x8b]) => {
                let mut inner = vec![];
                GzDecoder::new(bytes)
                    .take(4 << 20)
                    .read_to_end(&mut inner)
                    .ok()?;
                Some(inner)
            }
            _ => Some(bytes.to_vec()),
        }
    }

    /// The outside of `base` around other bytes.
    pub fn pack(self, base: &[u8], mut bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Png => png_checksums(&mut bytes),
            Self::TfRecord => record_checksums(&mut bytes),
            Self::Safetensors => seal(&mut bytes),
            _ => {}
        }
        if base.starts_with(&[0x1f, 0x8b]) && matches!(self, Self::Gzip | Self::TfRecord) {
            let mut packed = GzEncoder::new(vec![], Compression::fast());
            if packed.write_all(&bytes).is_ok()
                && let Ok(packed) = packed.finish()
            {
                return packed;
            }
        }
        bytes
    }

    /// What the bytes say, where that is a tree.
    pub fn tree(self, bytes: &[u8]) -> Option<Value> {
        match self {
            Self::Json => serde_json::from_slice(bytes).ok(),
            Self::Toml => toml::from_str(std::str::from_utf8(bytes).ok()?).ok(),
            Self::Safetensors => {
                serde_json::from_slice(bytes.get(8..8 + header_length(bytes)?)?).ok()
            }
            _ => None,
        }
    }

    /// The bytes that say another tree; what else `old` says stays.
    pub fn untree(self, old: &[u8], tree: &Value) -> Option<Vec<u8>> {
        match self {
            Self::Json => serde_json::to_vec(tree).ok(),
            Self::Toml => Some(toml::to_string(tree).ok()?.into_bytes()),
            Self::Safetensors => {
                let header = serde_json::to_vec(tree).ok()?;
                let rest = old.get(8 + header_length(old)?..)?;
                Some([&(header.len() as u64).to_le_bytes(), &header[..], rest].concat())
            }
            _ => None,
        }
    }
}

fn header_length(bytes: &[u8]) -> Option<usize> {
    let length = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
    usize::try_from(length).ok().filter(|n| *n < bytes.len())
}

/// A checkpoint of format 2 has in its header the BLAKE3 of the file with zeros in this place. That of format 1 is over
/// the tensors.
fn seal(bytes: &mut [u8]) {
    const DIGITS: usize = 64;
    let after = |what: &[u8]| {
        let found = bytes.windows(what.len()).position(|w| w == what);
        found.map(|at| at + what.len())
    };
    let (Some(_), Some(at)) = (after(br#"version\":2"#), after(br#"digest\":\""#)) else {
        return;
    };
    let place = at..at + DIGITS;
    if bytes
        .get(place.clone())
        .is_some_and(|digest| digest.iter().all(u8::is_ascii_hexdigit))
    {
        bytes[place.clone()].fill(b'0');
        let digest = blake3::hash(bytes).to_hex();
        bytes[place].copy_from_slice(digest.as_bytes());
    }
}

/// Length, type, data and CRC-32 of type and data.
fn png_checksums(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let (from, Some(end)) = (at + 4, (at + 8).checked_add(length)) else {
            return;
        };
        if end + 4 > bytes.len() {
            return;
        }
        let mut crc = Crc::new();
        crc.update(&bytes[from..end]);
        bytes[end..end + 4].copy_from_slice(&crc.sum().to_be_bytes());
        at = end + 4;
    }
}

/// Length, its masked CRC-32C, data, its masked CRC-32C.
fn record_checksums(bytes: &mut [u8]) {
    let masked = |bytes: &[u8]| {
        let crc = crc32c::crc32c(bytes);
        (crc.rotate_right(15).wrapping_add(0xa282_ead8)).to_le_bytes()
    };
    let mut at: usize = 0;
    while let Some(Ok(length)) = bytes.get(at..at + 8).map(<[u8; 8]>::try_from) {
        let length = u64::from_le_bytes(length);
        let Some(data) = at.checked_add(12).filter(|d| *d <= bytes.len()) else {
            return;
        };
        let crc = masked(&bytes[at..at + 8]);
        bytes[at + 8..data].copy_from_slice(&crc);
        let end = usize::try_from(length)
            .ok()
            .and_then(|n| data.checked_add(n));
        let Some(end) = end.filter(|e| e.checked_add(4).is_some_and(|e| e <= bytes.len())) else {
            return;
        };
        let crc = masked(&bytes[data..end]);
        bytes[end..end + 4].copy_from_slice(&crc);
        at = end + 4;
    }
}
