//! The IDX format of MNIST and Fashion-MNIST: two zero bytes, the type of an element, the number of
//! dimensions, each dimension as a big-endian 32-bit number, then the elements.
//! (LeCun, Cortes, Burges: The MNIST database.)

use std::path::Path;

use nasfw_framework::Result;

use crate::files;

/// The element type "unsigned byte", the only one that these datasets use.
const UNSIGNED_BYTE: u8 = 8;

/// Bytes of a file that holds an array of these sizes.
pub fn file_size(sizes: &[usize]) -> usize {
    4 + 4 * sizes.len() + sizes.iter().product::<usize>()
}

/// The elements of an IDX file of unsigned bytes, which must have exactly the given sizes. `path`
/// is named in errors.
///
/// # Errors
/// Another magic number, other sizes, missing or left-over bytes.
pub fn elements<'a>(bytes: &'a [u8], sizes: &[usize], path: &Path) -> Result<&'a [u8]> {
    let wrong = |problem: String| Err(files::corrupt(path, problem));
    let header = 4 + 4 * sizes.len();
    let Some((magic, rest)) = bytes.split_at_checked(4) else {
        return wrong(format!("{} bytes are too few for an IDX file", bytes.len()));
    };
    let expected = [0, 0, UNSIGNED_BYTE, sizes.len() as u8];
    if magic != expected {
        return wrong(format!(
            "starts with the bytes {magic:?}, an IDX file of {} starts with {expected:?}",
            if sizes.len() == 1 { "labels" } else { "images" }
        ));
    }
    let Some((dimensions, elements)) = rest.split_at_checked(4 * sizes.len()) else {
        return wrong(format!(
            "ends after {} of {header} bytes of header",
            bytes.len()
        ));
    };
    let found: Vec<u32> = dimensions
        .as_chunks()
        .0
        .iter()
        .map(|&size| u32::from_be_bytes(size))
        .collect();
    if found
        .iter()
        .zip(sizes)
        .any(|(&found, &size)| found as usize != size)
    {
        return wrong(format!("its sizes are {found:?}, expected {sizes:?}"));
    }
    let count: usize = sizes.iter().product();
    if elements.len() != count {
        return wrong(files::length_problem(
            elements.len(),
            count,
            "bytes after its header",
        ));
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const LABELS: [u8; 11] = [0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9];

    fn error(bytes: &[u8], sizes: &[usize]) -> String {
        elements(bytes, sizes, Path::new("labels.idx"))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn elements_follow_the_header() {
        let path = Path::new("labels.idx");
        assert_eq!(elements(&LABELS, &[3], path).unwrap(), [7, 8, 9]);
        let images = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4];
        assert_eq!(elements(&images, &[2, 1, 2], path).unwrap(), [1, 2, 3, 4]);
        assert_eq!(file_size(&[2, 1, 2]), images.len());
    }

    #[test]
    fn every_mistake_is_named() {
        for (bytes, sizes, words) in [
            (&LABELS[..3], &[3][..], "3 bytes are too few"),
            (&LABELS[..7], &[3], "ends after 7 of 8 bytes of header"),
            (
                &LABELS[..],
                &[3, 1, 1],
                "an IDX file of images starts with [0, 0, 8, 3]",
            ),
            (&LABELS[..], &[4], "its sizes are [3], expected [4]"),
            (
                &LABELS[..10],
                &[3],
                "2 of 3 bytes after its header: it is truncated",
            ),
            (
                &[&LABELS[..], &[0]].concat(),
                &[3],
                "4 bytes after its header, 3 are expected",
            ),
            (
                &[0, 0, 13, 1, 0, 0, 0, 3, 7, 8, 9],
                &[3],
                "starts with the bytes [0, 0, 13, 1]",
            ),
        ] {
            let error = error(bytes, sizes);
            assert!(
                error.contains(words) && error.contains("labels.idx"),
                "{words}: {error}"
            );
        }
    }
}
