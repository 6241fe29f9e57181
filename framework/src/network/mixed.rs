//! A network for all architectures of a space: its supernet.

use tch::Tensor;

use super::graph::Network;
use crate::arch::{ArchSpec, RelaxedArch};
use crate::error::{Error, Result};
use crate::params::ParamLayout;
use crate::rng::Streams;
use crate::supernet::{Mode, OwnWeights, Supernet, SupernetOptions, Weights};

/// A network that holds all candidates of a space, of [`super::NetworkBuilder::finish_open`]: the same description as the
/// networks of the space's architectures. With the one-hot weights of an architecture it is the network of that
/// architecture, weights by their names, but that batch norms go by the batch's statistics unless running ones are asked
/// for.
#[derive(Debug)]
pub struct Mixed {
    network: Network,
    spec: ArchSpec,
    options: SupernetOptions,
    own: Vec<OwnWeights>,
}

impl Mixed {
    /// `network` mixes candidates of `spec` that `options` allow, with weights of their own.
    pub(super) fn new(
        network: Network,
        spec: ArchSpec,
        options: SupernetOptions,
        own: Vec<OwnWeights>,
    ) -> Self {
        Self {
            network,
            spec,
            options,
            own,
        }
    }

    /// Whether an architecture has the shapes of the space.
    fn check(&self, arch: &RelaxedArch) -> Result<()> {
        let invalid = |why: String| {
            Err(Error::Invalid {
                what: "architecture of a supernet".into(),
                why,
            })
        };
        let groups = self.spec.groups();
        let count = groups.len();
        let counts = [
            ("weights", Some(arch.weights.len())),
            ("offsets", arch.offsets.as_ref().map(Vec::len)),
            ("active", arch.active.as_ref().map(Vec::len)),
        ];
        for (what, found) in counts {
            if found.is_some_and(|found| found != count) {
                return invalid(format!("`{what}` has {found:?} groups, not {count}"));
            }
        }
        for (g, group) in groups.iter().enumerate() {
            let (name, shape) = (&group.name, group.shape());
            let weights = arch.weights[g].size();
            if weights != shape {
                return invalid(format!(
                    "weights of group `{name}`: {weights:?}, not {shape:?}"
                ));
            }
            let offsets = arch.offsets.as_ref().map(|of| of[g].size());
            if offsets.as_ref().is_some_and(|of| *of != shape[..1]) {
                return invalid(format!("offsets of group `{name}`: {offsets:?}"));
            }
            let short = |active: &Vec<Vec<Vec<bool>>>| {
                let rows = group.rows.iter().zip(&active[g]);
                active[g].len() != group.rows.len()
                    || rows
                        .into_iter()
                        .any(|(row, a)| a.len() < row.candidates.len())
            };
            if arch.active.as_ref().is_some_and(short) {
                return invalid(format!("`active` of group `{name}` lacks candidates"));
            }
        }
        Ok(())
    }
}

impl Supernet for Mixed {
    fn layout(&self) -> &ParamLayout {
        self.network.layout()
    }

    fn stats_layout(&self) -> ParamLayout {
        self.network.stats_layout().clone()
    }

    fn own_weights(&self) -> Vec<OwnWeights> {
        self.own.clone()
    }

    fn takes_one_image(&self) -> bool {
        self.network.takes_one_image()
    }

    fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        mode: Mode,
        noise: Streams,
    ) -> Result<Tensor> {
        self.check(arch)?;
        let (_, drop_path) = self.options.rates(arch, mode)?;
        (self.network).forward_mixed(weights, images, arch, mode, drop_path, noise)
    }
}
