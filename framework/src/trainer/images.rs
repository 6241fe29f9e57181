//! The images that a run is measured on.

use crate::dataset::ImageData;
use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::job::{Measured, Reopen};
use crate::run::{MANIFEST, Manifest, read_stored};

/// The images that a run is measured on, as its network takes them.
///
/// Runs of earlier versions do not keep how that is; their own images tell, which are known by their checksum.
///
/// # Errors
/// A manifest that makes no sense, images that can't be shown to the network, and own images that have changed where
/// they are needed to tell.
pub(super) fn load(job: &Reopen<'_>) -> Result<ImageData> {
    let manifest: Manifest = read_stored(job.run, MANIFEST)?;
    let wrong = |problem: String, help: &str| Error::Run {
        path: job.run.join(MANIFEST),
        problem,
        help: help.into(),
    };
    let (own, source) = (job.config.dataset.as_ref(), job.config.common.source());
    if let Some(inputs) = manifest.inputs {
        if let Some(problem) = inputs.problem() {
            return Err(wrong(problem, "this file was edited: put back what it was"));
        }
        return match job.on {
            Measured::Nothing => Ok(inputs.blank()),
            Measured::Other(other, source) => inputs.load(other, source),
            Measured::Own => {
                let data = inputs.load(own, &source)?;
                if data.checksum() != manifest.data {
                    tracing::warn!(
                        "the images are not those that {} was made with",
                        job.run.display()
                    );
                }
                Ok(data)
            }
        };
    }
    tracing::info!(
        "{} is of an earlier version and does not say what its network takes: its own images tell",
        job.run.display()
    );
    let data = own.load(&source)?;
    if data.checksum() != manifest.data {
        return Err(wrong(
            "this run is of an earlier version, and its own images, which alone tell what its network takes, have \
             changed"
                .into(),
            "put the images back that the run began with, or train the architecture anew with `nasfw retrain RUN`",
        ));
    }
    match job.on {
        Measured::Other(other, source) => Inputs::of(own, &data).load(other, source),
        Measured::Own | Measured::Nothing => Ok(data),
    }
}
