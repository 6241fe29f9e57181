//! Which architectures are one.

use nasfw_framework::Result;
use nasfw_framework::arch::Genotype;

use crate::formats::nasbench101_spec;
use crate::tables::nasbench101;

/// Names an architecture in a file.
pub type Key = [u8; 16];

/// The key of an architecture. Cells of NAS-Bench-101's spaces have the benchmark's own, which isomorphic cells share; of
/// others those are one whose nodes read the same, in whatever order. None of a cell that no benchmark can contain: too
/// many edges, or no path.
///
/// # Errors
/// None that a user could cause.
pub fn key(genotype: &Genotype) -> Result<Option<Key>> {
    if nasbench101::FAMILY
        .spaces
        .contains(&genotype.space.as_str())
    {
        let spec = nasbench101_spec(genotype).ok();
        return Ok(spec.map(|s| s.digest()));
    }
    let mut cells = genotype.cells.clone();
    for cell in &mut cells {
        for node in &mut cell.nodes {
            node.inputs
                .sort_by(|a, b| (a.from, &a.op).cmp(&(b.from, &b.op)));
        }
        cell.output.sort_unstable();
    }
    let text = serde_json::to_vec(&cells).map_err(|e| nasfw_framework::Error::Invalid {
        what: "architecture".into(),
        why: e.to_string(),
    })?;
    Ok(blake3::hash(&text).as_bytes().first_chunk().copied())
}
