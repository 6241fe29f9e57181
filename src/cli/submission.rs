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

    /// For a job, gives settings that leave the number of threads open that of the job's processors: the next host that it
    /// begins again on may have more, and with them come other last bits.
    pub fn fix_threads(&self, resolved: &mut Resolved) {
        if let Some(engine) = self.on
            && resolved.value["threads"] == 0
        {
            resolved.value["threads"] = self.cpus(engine).into();
        }
    }

    /// Submits a job that begins or goes on with the run in a folder, unless there is one.
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
        host.works_in(run);
        let name = engine.name_of(run);
        let said = run.join(SAID);
        let tell = |id: String, what: &str| {
            say(format!("job {id} of {engine} {what} {}", run.display()));
            say(format!(
                "follow: `{}`, or what it says in {}",
                command([OsStr::new("watch"), run.as_os_str()]),
                said.display()
            ));
            say(format!("cancel: `{}`", engine.cancel(&[id])));
        };
        if let Some(job) = engine.queued(&name)?.into_iter().next() {
            tell(job.id, "works already on");
            return Ok(());
        }
        let mut words = vec![OsStr::new("resume"), run.as_os_str(), OsStr::new("--wait")];
        words.extend(
            data_dir
                .iter()
                .flat_map(|dir| [OsStr::new("--data-dir"), dir.as_os_str()]),
        );
        let order = Order {
            name,
            command: itself_with(words).map_err(Error::io("find", "this program"))?,
            numbers: None,
            at_once: None,
            cpus: threads(run)?.unwrap_or(self.cpus(engine)),
            folder: here()?,
            said: said.clone(),
            options: self.slurm.clone(),
        };
        let file = run.join(SCRIPT);
        for script in engine.scripts(&order)? {
            write_whole(&file, script.text.as_bytes())?;
            engine.check(&file)?;
            tell(engine.submit(&file)?, "is to work on");
        }
        Ok(())
    }
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
