//! Recognising benchmarks as their authors publish them, where only the authors' own package can read them.

use std::path::Path;

use nasfw_framework::{Error, Result};

/// How PyTorch's older files begin: a pickle of a magic number, in protocol 2.
const TORCH: [u8; 14] = [
    0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19,
];
/// How its newer files begin: a ZIP archive.
const ZIP: [u8; 4] = *b"PK\x03\x04";
const BZIP2: [u8; 3] = *b"BZh";

/// Refuses NAS-Bench-201's and NATS-Bench's own files. `start` are a file's first bytes; none of a folder.
///
/// # Errors
/// [`Error::Data`] that says what it is and how to turn it into a file that is read.
pub(super) fn refuse(path: &Path, start: Option<&[u8]>) -> Result<()> {
    let what = match start {
        None => {
            "this is a folder, as NATS-Bench's is: a pickle compressed by bzip2 for each architecture"
        }
        Some(start) if start.starts_with(&TORCH) || start.starts_with(&ZIP) => {
            "this is a file of PyTorch (torch.save), as NAS-Bench-201's official `.pth` files are"
        }
        Some(start) if start.starts_with(&BZIP2) => {
            "this is compressed by bzip2, as NATS-Bench's pickles are (`.pickle.pbz2`)"
        }
        Some(_) => return Ok(()),
    };
    Err(Error::Data {
        path: path.into(),
        problem: format!("{what}: only the authors' own Python package reads it"),
        help: "docs/tables.md, \"The official files\", has a short Python program that writes what is in it to \
               nasbench201.csv; then type `nasfw bench import nasbench201 nasbench201.csv`"
            .into(),
    })
}
