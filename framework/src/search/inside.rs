//! What goes on inside a supernet: values on their way, and weights of the architecture cell by cell.

use super::running::Search;
use crate::arch::RelaxedArch;
use crate::error::{Error, Result};
use crate::observe::{self, Value, Wanted};

impl Search {
    /// Does `run`, and gives what the forward passes in it told ([`observe::values`]). Losses are then taken in one piece
    /// whatever `trainer.micro_batch` says, so that values keep their graphs.
    ///
    /// # Errors
    /// Those of `run`; [`Error::HasNone`] where nothing was told: the space's network has no such values, or was written
    /// without telling them.
    pub fn observe<T>(
        &mut self,
        wanted: Wanted,
        run: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<(T, Vec<Value>)> {
        let (done, values) = observe::values(wanted, || run(self));
        let done = done?;
        if values.is_empty() {
            return Err(Error::HasNone {
                who: "the network of this space",
                what: wanted.name(),
            });
        }
        Ok((done, values))
    }

    /// The same architecture with a copy of its weights for every cell ([`RelaxedArch::in_cells`]). The gradient of a loss
    /// with respect to a copy is that of one cell, and their sum the ordinary one (Λ-DARTS, Movahedi et al. 2023, ICLR).
    ///
    /// # Errors
    /// [`Error::HasNone`] where the supernet's cells don't take weights of their own.
    pub fn in_cells(&self, arch: &RelaxedArch) -> Result<RelaxedArch> {
        match self.supernet.cells() {
            0 => Err(Error::HasNone {
                who: "the supernet of this space",
                what: "cells that take weights of their own",
            }),
            n => Ok(arch.in_cells(n)),
        }
    }

    /// Refuses weights for another number of cells than the supernet has: one that knows nothing of them has none.
    pub(super) fn check_cells(&self, arch: &RelaxedArch) -> Result<()> {
        let has = self.supernet.cells();
        match &arch.cells {
            Some(cells) if cells.len() != has => Err(Error::Invalid {
                what: "architecture".into(),
                why: format!(
                    "it has weights for {} cells; the supernet has {has} that take weights of their own",
                    cells.len()
                ),
            }),
            _ => Ok(()),
        }
    }
}
