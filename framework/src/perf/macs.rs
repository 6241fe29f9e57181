//! Multiply-adds of a supernet.

use crate::arch::{Choice, Role};
use crate::network::NetworkOptions;
use crate::space::{SearchSpace, Task};

/// Multiply-adds of one image through the supernet of this size, where every row is an edge whose candidates add up:
/// what costs the empty network, and what every candidate adds to it, counted in standalone networks with the same
/// candidate on all edges. None for spaces with choices of sources and for those without standalone networks.
pub fn supernet_macs(space: &dyn SearchSpace, task: Task, options: &NetworkOptions) -> Option<i64> {
    let spec = space.spec();
    if spec.groups().iter().any(|g| g.role != Role::Operations) {
        return None;
    }
    let macs = |kept: &dyn Fn(usize) -> Vec<usize>| {
        let rows = spec.groups().iter().map(|g| {
            let rows = g.rows.iter().map(|row| kept(row.candidates.len()));
            rows.collect()
        });
        let genotype = space.genotype(&Choice::new(rows.collect()));
        let network = space.network(&genotype, task, options).ok()?;
        Some(network.size().macs)
    };
    let empty = macs(&|_| vec![])?;
    let widest = spec.groups().iter().map(|g| g.width()).max()?;
    (0..widest).try_fold(empty, |sum, c| {
        let with = macs(&|candidates| if c < candidates { vec![c] } else { vec![] })?;
        Some(sum + with - empty)
    })
}
