//! A network's weights as a file.

use std::collections::{BTreeMap, HashMap};

use super::graph::Network;
use crate::error::{Error, Result};
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
        let mut entries = BTreeMap::new();
        for (layout, flat) in [(&self.params, weights.params), (&self.stats, weights.stats)] {
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
}
