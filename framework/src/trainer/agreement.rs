//! What must be the same: in all processes of a run, and in a process that goes on with one.

use std::collections::BTreeMap;

use super::checkpoint::Checkpoint;
use crate::device;
use crate::error::{Error, Result};
use crate::job::Job;
use crate::ranks::Ranks;
use crate::registry::Registry;
use crate::run::{Manifest, Worker};

/// The version of every crate that registers a plugin.
pub(super) fn plugin_versions() -> Result<BTreeMap<String, String>> {
    let registry = Registry::load()?;
    let versions = registry.all().iter();
    Ok(versions
        .map(|p| (p.crate_name.to_owned(), p.crate_version.to_owned()))
        .collect())
}

/// Makes sure that all processes are about to do the same.
pub(super) fn same_for_all(
    ranks: &Ranks,
    fingerprint: &str,
    data: &str,
    table: &Option<String>,
    costs: &BTreeMap<String, String>,
    restored: Option<&Checkpoint>,
) -> Result<()> {
    if ranks.world() == 1 {
        return Ok(());
    }
    let plugins = plugin_versions()?;
    let program = (env!("CARGO_PKG_VERSION"), device::libtorch_version());
    let checkpoint = restored.map(Checkpoint::digest).transpose()?;
    let what = [
        ("the program", format!("{program:?}")),
        (
            "the list of plugins and their versions",
            format!("{plugins:?}"),
        ),
        ("the run's settings", fingerprint.to_owned()),
        ("the dataset", data.to_owned()),
        ("the benchmark's table", format!("{table:?}")),
        ("the tables of costs", format!("{costs:?}")),
        ("the checkpoint to go on from", format!("{checkpoint:?}")),
        (
            "the number of CPU threads",
            tch::get_num_threads().to_string(),
        ),
    ];
    let what = what.each_ref().map(|(name, value)| (*name, value.as_str()));
    ranks.agree(
        &what,
        "give all hosts the same program, files and settings (OMP_NUM_THREADS or `--set threads=N`, too)",
    )
}

/// All processes that carry the run out.
pub(super) fn workers(ranks: &Ranks) -> Result<Vec<Worker>> {
    if ranks.world() == 1 {
        return Ok(vec![Worker::this()]);
    }
    let this = Worker {
        rank: Some(ranks.rank()),
        ..Worker::this()
    };
    let json = |e: serde_json::Error| Error::Invalid {
        what: "process of a run".into(),
        why: e.to_string(),
    };
    let all = ranks.texts(&serde_json::to_string(&this).map_err(json)?)?;
    let workers = all.iter().map(|w| serde_json::from_str(w).map_err(json));
    workers.collect()
}

/// Refuses to go on with other data than the run began with.
pub(super) fn same_data(job: &Job<'_>, manifest: &Manifest, checksum: &str) -> Result<()> {
    if manifest.data == checksum {
        return Ok(());
    }
    Err(Error::Run {
        path: job.run.path().to_owned(),
        problem: "the dataset's files have changed since this run began".into(),
        help: "put the files back that the run began with (`--data-dir DIR`), or start a new run"
            .into(),
    })
}

/// Refuses to go on with another table than the run began with: its curve would be one of two measures.
pub(super) fn same_table(job: &Job<'_>, manifest: &Manifest, table: Option<&str>) -> Result<()> {
    if manifest.benchmark.as_deref() == table {
        return Ok(());
    }
    let problem = match table {
        Some(_) => "the benchmark's table is another one than this run began with",
        None => "the benchmark's table that this run began with is gone",
    };
    Err(Error::Run {
        path: job.run.path().to_owned(),
        problem: problem.into(),
        help: "put the table back (`nasfw bench list` shows where it is looked for), or start a new run"
            .into(),
    })
}

/// Refuses to go on with another table of a cost than the run began with: its penalty would be of two measures.
pub(super) fn same_costs(
    job: &Job<'_>,
    manifest: &Manifest,
    costs: &BTreeMap<String, String>,
) -> Result<()> {
    let other = costs
        .iter()
        .find(|(name, sum)| manifest.costs.get(*name) != Some(*sum));
    let Some((name, _)) = other else {
        return Ok(());
    };
    Err(Error::Run {
        path: job.run.path().to_owned(),
        problem: format!("the table of `{name}` is another one than this run began with"),
        help: "put the table back that the run began with, or start a new run".into(),
    })
}
