//! TensorFlow's record files, and the two messages that NAS-Bench-101 keeps in them.

use std::io::{self, Read};
use std::path::Path;

use nasfw_framework::Result;
use prost::Message;

use super::source::bad;

/// A longer record is no record of a benchmark.
const MAX_RECORD: u64 = 1 << 24;

/// Reads records: length (u64, little-endian), masked CRC32C of it, that many bytes, masked CRC32C of them.
pub(super) struct Records<'a, R> {
    path: &'a Path,
    file: R,
    /// Records read so far.
    pub(super) count: u64,
}

/// CRC32C as TensorFlow keeps it, so that a checksum of data with checksums in it stays a good one.
fn masked(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

/// Whether a file that begins with these bytes is a record file.
pub(super) fn begins(bytes: &[u8]) -> bool {
    match (bytes.first_chunk::<8>(), bytes.get(8..12)) {
        (Some(length), Some(crc)) => masked(length).to_le_bytes() == crc,
        _ => false,
    }
}

impl<'a, R: Read> Records<'a, R> {
    pub(super) fn new(path: &'a Path, file: R) -> Self {
        Self {
            path,
            file,
            count: 0,
        }
    }

    /// The next record; none at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let record = self.count + 1;
        let wrong = |what: &str| bad(self.path, format!("record {record} is {what}"));
        let unreadable =
            |e: io::Error| bad(self.path, format!("record {record} cannot be read: {e}"));
        let mut head = Vec::new();
        self.file
            .by_ref()
            .take(12)
            .read_to_end(&mut head)
            .map_err(unreadable)?;
        if head.is_empty() {
            return Ok(None);
        }
        let (Some(length), Some(crc)) = (head.first_chunk::<8>(), head.get(8..12)) else {
            return Err(wrong("truncated"));
        };
        if masked(length).to_le_bytes() != crc {
            return Err(wrong("corrupt (checksum of its length)"));
        }
        let length = u64::from_le_bytes(*length);
        if length > MAX_RECORD {
            return Err(wrong("longer than 16 MiB"));
        }
        let mut data = Vec::new();
        self.file
            .by_ref()
            .take(length + 4)
            .read_to_end(&mut data)
            .map_err(unreadable)?;
        let Some((data, crc)) = data
            .split_last_chunk::<4>()
            .filter(|(d, _)| d.len() as u64 == length)
        else {
            return Err(wrong("truncated"));
        };
        if masked(data).to_le_bytes() != *crc {
            return Err(wrong("corrupt (checksum)"));
        }
        self.count = record;
        Ok(Some(data.to_vec()))
    }
}

/// `nasbench.ModelMetrics` of google-research/nasbench, `nasbench/lib/model_metrics.proto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelMetrics {
    /// At the start, half-way and at the end of training.
    #[prost(message, repeated, tag = "1")]
    pub(super) evaluation_data: Vec<EvaluationData>,
    /// Number of parameters.
    #[prost(int32, optional, tag = "2")]
    pub(super) trainable_parameters: Option<i32>,
    /// Seconds of training and evaluation.
    #[prost(double, optional, tag = "3")]
    pub(super) total_time: Option<f64>,
}

/// `nasbench.EvaluationData`. Accuracies are fractions.
#[derive(Clone, PartialEq, Message)]
pub(super) struct EvaluationData {
    #[prost(double, optional, tag = "1")]
    pub(super) current_epoch: Option<f64>,
    /// Seconds of training up to here.
    #[prost(double, optional, tag = "2")]
    pub(super) training_time: Option<f64>,
    #[prost(double, optional, tag = "3")]
    pub(super) train_accuracy: Option<f64>,
    #[prost(double, optional, tag = "4")]
    pub(super) validation_accuracy: Option<f64>,
    #[prost(double, optional, tag = "5")]
    pub(super) test_accuracy: Option<f64>,
    #[prost(string, optional, tag = "6")]
    pub(super) checkpoint_path: Option<String>,
}
