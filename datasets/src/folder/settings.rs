//! The settings of datasets in folders.

use serde::{Deserialize, Serialize};

/// How images in folders are used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Folders {
    /// Rows and columns of an image as the network sees it.
    pub size: u32,
    /// Length of the shorter side that test images are scaled to before their middle is cut out; 0 is 8/7 of `size`.
    pub resize: u32,
    /// Smallest and largest fraction of a training image's area that a random crop covers.
    pub crop_scale: [f64; 2],
    /// Fraction of each class's training images that the weights learn from where a strategy splits them.
    pub weights_fraction: f64,
    /// Fraction that the architecture learns from; what both leave over is not used.
    pub arch_fraction: f64,
    /// Whether every file is decoded once before the search begins.
    pub check: bool,
}
