//! A run that is handed to a cluster's engine instead of being carried out here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::Args;
use nasfw_framework::command::{command, itself_with};
use nasfw_framework::config::{Resolved, RunConfig};
use nasfw_framework::engine::{Engine, Order};
use nasfw_framework::run::{MANIFEST, Manifest, read_json_if_there, write_whole};
use nasfw_framework::{Error, Result};

use super::output::say;
use crate::host::Host;

/// The script of a run's job, in its folder.
const SCRIPT: &str = "job.sh";
/// What a run's job says, in its folder.
const SAID: &str = "job.txt";

/// Who carries something out.
#[derive(Debug, Args)]
pub struct Submission {
    /// Hand it to this engine of a cluster: `slurm` [see docs/cluster.md]
    #[arg(long, value_name = "ENGINE")]
    on: Option<Engine>,
    /// An option of Slurm's `sbatch`, for example `--slurm partition=gpu --slurm time=12:00:00`
    #[arg(long, value_name = "KEY=VALUE", requires = "on")]
    slurm: Vec<String>,
}

/// Who carries a run out.
#[derive(Debug, Args)]
pub struct Handover {
    #[command(flatten)]
    submission: Submission,
    /// Only print the script that `--on` would submit
    #[arg(long, requires = "on")]
    dry_run: bool,
}

impl Submission {
    /// The engine, if it is not this process.
    pub fn engine(&self) -> Option<Engine> {
        self.on
    }

    /// Options for the engine.
    pub fn options(&self) -> &[String] {
        &self.slurm
    }

    /// Processors of a job: as the user says, else one.
    pub fn cpus(&self, engine: Engine) -> u64 {
        engine.cpus(&self.slurm).unwrap_or(1)
    }
}

impl Handover {
    /// The engine, if it is not this process.
    pub fn engine(&self) -> Option<Engine> {
        self.submission.on
    }

    /// Whether the script is wanted and no job.
    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// For a job, gives settings that leave the number of threads open that of the job's processors: the next host that it
    /// begins again on may have more, and with them come other last bits.
    pub fn fix_threads(&self, resolved: &mut Resolved) {
        if let Some(engine) = self.submission.on
            && resolved.value["threads"] == 0
        {
            resolved.value["threads"] = self.submission.cpus(engine).into();
        }
    }

    /// Submits a job that begins or goes on with the run in a folder, unless there is one; or only prints its script.
    ///
    /// # Errors
    /// What the engine has to say against it; a folder that can't be written to.
    pub fn submit(
        &self,
        host: &Host,
        engine: Engine,
        run: &Path,
        data_dir: Option<&Path>,
    ) -> Result<()> {
        let order = self.order(engine, run, data_dir, threads(run)?)?;
        if self.dry_run {
            return show(engine, &order);
        }
        host.works_in(run);
        let tell = |id: String, what: &str| {
            say(format!("job {id} of {engine} {what} {}", run.display()));
            say(format!(
                "follow: `{}`, or what it says in {}",
                command([OsStr::new("watch"), run.as_os_str()]),
                run.join(SAID).display()
            ));
            say(format!("cancel: `{}`", engine.cancel(&[id])));
        };
        if let Some(job) = engine.queued(&order.name)?.into_iter().next() {
            tell(job.id, "works already on");
            return Ok(());
        }
        let file = run.join(SCRIPT);
        for script in engine.scripts(&order)? {
            write_whole(&file, script.text.as_bytes())?;
            engine.check(&file)?;
            tell(engine.submit(&file)?, "is to work on");
        }
        Ok(())
    }

    /// Prints the script for a run that has not begun, with a number of threads.
    ///
    /// # Errors
    /// What the engine has to say against it.
    pub fn show_first(&self, engine: Engine, run: &Path, threads: usize) -> Result<()> {
        let threads = (threads > 0).then_some(threads as u64);
        show(engine, &self.order(engine, run, None, threads)?)
    }

    fn order(
        &self,
        engine: Engine,
        run: &Path,
        data_dir: Option<&Path>,
        threads: Option<u64>,
    ) -> Result<Order> {
        let mut words = vec![OsStr::new("resume"), run.as_os_str(), OsStr::new("--wait")];
        words.extend(
            data_dir
                .iter()
                .flat_map(|dir| [OsStr::new("--data-dir"), dir.as_os_str()]),
        );
        Ok(Order {
            name: engine.name_of(run),
            command: itself_with(words).map_err(Error::io("find", "this program"))?,
            numbers: None,
            at_once: None,
            cpus: threads.unwrap_or(self.submission.cpus(engine)),
            folder: here()?,
            said: run.join(SAID),
            options: self.submission.slurm.clone(),
        })
    }
}

/// Prints scripts instead of submitting them.
fn show(engine: Engine, order: &Order) -> Result<()> {
    let scripts = engine.scripts(order)?;
    scripts.iter().for_each(|script| say(&script.text));
    Ok(())
}

/// The folder that commands are typed in.
pub fn here() -> Result<PathBuf> {
    std::env::current_dir().map_err(Error::io("find", "the current folder"))
}

/// How many threads a run takes, where that is fixed.
fn threads(run: &Path) -> Result<Option<u64>> {
    let manifest: Option<Manifest> = read_json_if_there(&run.join(MANIFEST), "")?;
    let begun = manifest.and_then(|m| u64::try_from(m.threads).ok());
    let set = RunConfig::of_run(run)?.common.threads as u64;
    Ok(begun.or((set > 0).then_some(set)))
}
