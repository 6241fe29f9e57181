//! Safetensors files that carry a checksum of themselves: a BLAKE3 over every byte, with zeros in its own place, so that a
//! flipped bit anywhere is noticed. It is the last field, `digest`, of a JSON text in the file's metadata.

/// Hexadecimal digits of a BLAKE3.
const DIGITS: usize = 64;

/// What stands in the place of the checksum until a file is sealed.
pub fn blank() -> String {
    "0".repeat(DIGITS)
}

/// Puts the checksum into a file that has [`blank`] in its place, and gives it. None where there is no such place.
pub fn seal(file: &mut [u8]) -> Option<String> {
    let place = place_of(file, &blank())?;
    let digest = blake3::hash(file).to_hex().to_string();
    file[place..place + DIGITS].copy_from_slice(digest.as_bytes());
    Some(digest)
}

/// Whether a file that says `digest` of itself is as it was sealed.
pub fn is_whole(file: &[u8], digest: &str) -> bool {
    if digest.len() != DIGITS {
        return false;
    }
    place_of(file, digest).is_some_and(|place| {
        let mut hasher = blake3::Hasher::new();
        hasher
            .update(&file[..place])
            .update(&[b'0'; DIGITS])
            .update(&file[place + DIGITS..]);
        hasher.finalize().to_hex().as_str() == digest
    })
}

/// Where a checksum stands in the header of a file.
fn place_of(file: &[u8], digest: &str) -> Option<usize> {
    let length = u64::from_le_bytes(*file.first_chunk()?);
    let header = file.get(8..usize::try_from(length).ok()?.checked_add(8)?)?;
    // As it is quoted within a text: a plugin's own field of this name would be found as well, but comes before it.
    let mark = format!("\\\"digest\\\":\\\"{digest}\\\"}}");
    let at = header
        .windows(mark.len())
        .rposition(|w| w == mark.as_bytes())?;
    Some(8 + at + mark.len() - DIGITS - 3)
}
