//! A network's weights as a file.

use std::collections::{BTreeMap, HashMap};

use super::graph::Network;
use crate::error::{Error, Result};
use crate::params::ParamLayout;
use crate::supernet::Weights;
use crate::tensors::to_bytes;

impl Network {
    /// The weights as a safetensors file: parameters and running statistics by their names in the layouts, in their own
    /// precision. `metadata`, JSON by convention, is kept under the header's key `nasfw`.
    ///
    /// # Errors
    /// Weights of another length than the layouts'.
    pub fn safetensors(&self, weights: Weights<'_>, metadata: &str) -> Result<Vec<u8>> {
        self.check_weights(weights)?;
        safetensors((&self.params, &self.stats), weights, metadata)
    }
}

/// Parameters and statistics by the names of their layouts, as a safetensors file with `metadata` under the key `nasfw`.
///
/// # Errors
/// Kinds of numbers that the format lacks.
pub(crate) fn safetensors(
    layouts: (&ParamLayout, &ParamLayout),
    weights: Weights<'_>,
    metadata: &str,
) -> Result<Vec<u8>> {
    let mut entries = BTreeMap::new();
    for (layout, flat) in [(layouts.0, weights.params), (layouts.1, weights.stats)] {
        for (name, tensor) in layout.named(flat) {
            entries.insert(name, to_bytes(&tensor)?);
        }
    }
    let metadata = HashMap::from([("nasfw".to_owned(), metadata.to_owned())]);
    safetensors::serialize(entries, Some(metadata)).map_err(|e| Error::Invalid {
        what: "weights".into(),
        why: e.to_string(),
    })
}
