//! A comparison as jobs of a cluster's engine, one a trial. They are found again by their name, so that nothing is
//! forgotten when this process ends; how far they are is read from the trials' folders.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nasfw_analysis::compare::Trial;
use nasfw_framework::command::itself_with;
use nasfw_framework::engine::{Engine, Order, Queued};
use nasfw_framework::printable::counted;
use nasfw_framework::run::{RunFolder, write_whole};
use nasfw_framework::{Error, Result};

use super::runner::{Ended, Runner};
use super::work::{Work, threads};
use crate::cli::progress;
use crate::cli::submission::{Submission, here};

/// Folder of the jobs' scripts and of what jobs say, in a comparison's folder.
const JOBS: &str = "jobs";
/// The engine is asked so long after something has changed …
const SOON: Duration = Duration::from_secs(2);
/// … and then less and less often, but not less than this.
const LATE: Duration = Duration::from_secs(60);
/// How often folders are looked at, if that does not take long.
const PAUSE: Duration = Duration::from_millis(500);
/// The most of its time that a process spends on looking: file systems of clusters have many to serve.
const SHARE: u32 = 20;

/// A comparison's jobs.
pub struct Jobs<'a> {
    /// Whose they are.
    pub engine: Engine,
    /// Options for the engine.
    pub submission: &'a Submission,
    /// The comparison.
    pub work: &'a Work,
    /// Jobs at once, where that is not the engine's to say.
    pub at_once: Option<u64>,
}

impl Jobs<'_> {
    fn runner(&self) -> Runner<'_> {
        self.work.runner(1)
    }

    /// Trials that are not done, with their numbers.
    fn left(&self) -> Result<BTreeMap<usize, &Trial>> {
        let mut left = BTreeMap::new();
        for (number, trial) in self.work.trials.iter().enumerate() {
            if !self.runner().is_done(trial)? {
                left.insert(number, trial);
            }
        }
        Ok(left)
    }

    fn order(&self, left: &BTreeMap<usize, &Trial>) -> Result<Order> {
        let words = ["trial".as_ref(), self.work.path.as_os_str()];
        Ok(Order {
            name: self.engine.name_of(&self.work.path),
            command: itself_with(words).map_err(Error::io("find", "this program"))?,
            numbers: Some(left.keys().copied().collect()),
            at_once: self.at_once,
            cpus: left
                .values()
                .filter_map(|t| threads(t))
                .max()
                .unwrap_or(1)
                .max(1),
            folder: here()?,
            said: self.work.path.join(JOBS),
            options: self.submission.options().to_vec(),
        })
    }

    /// The scripts that would be submitted if no trial had a job.
    pub fn scripts(&self) -> Result<Vec<String>> {
        let scripts = self.engine.scripts(&self.order(&self.left()?)?)?;
        Ok(scripts.into_iter().map(|s| s.text).collect())
    }

    /// Submits jobs for what is not done and has none.
    pub fn submit(&self) -> Result<()> {
        let mut left = self.left()?;
        let done = self.work.trials.len() - left.len();
        if done > 0 {
            progress::line(&format!(
                "{done} of {} trials are done already",
                self.work.trials.len()
            ));
        }
        let jobs = self.queued()?;
        let have = jobs.iter().filter_map(|job| job.number);
        let have: BTreeSet<usize> = have.filter(|n| left.remove(n).is_some()).collect();
        if !have.is_empty() {
            progress::line(&format!(
                "{} already jobs of {}",
                are(have.len()),
                self.engine
            ));
        }
        if left.is_empty() {
            return Ok(());
        }
        let order = self.order(&left)?;
        let folder = self.work.path.join(JOBS);
        fs::create_dir_all(&folder).map_err(Error::io("create the folder", &folder))?;
        let mut files = vec![];
        for script in self.engine.scripts(&order)? {
            let file = folder.join(format!("{}.sh", script.first));
            write_whole(&file, script.text.as_bytes())?;
            self.engine.check(&file)?;
            files.push(file);
        }
        for file in files {
            let id = self.engine.submit(&file)?;
            progress::line(&format!(
                "job {id} of {}: {}; `{}` cancels it",
                self.engine,
                file.display(),
                self.engine.cancel(std::slice::from_ref(&id))
            ));
        }
        Ok(())
    }

    fn queued(&self) -> Result<Vec<Queued>> {
        self.engine.queued(&self.engine.name_of(&self.work.path))
    }

    /// What to type to cancel what is left.
    pub fn cancel(&self) -> Option<String> {
        let ids: BTreeSet<String> = self.queued().ok()?.into_iter().map(|job| job.id).collect();
        (!ids.is_empty()).then(|| self.engine.cancel(&ids.into_iter().collect::<Vec<_>>()))
    }

    /// Watches until all is done, or what is not done has no job any more.
    pub fn watch(&self, interrupt: &AtomicBool) -> Result<Ended> {
        let all = self.work.trials.len();
        let mut left = self.left()?;
        let (mut asked, mut pause) = (Instant::now(), Duration::ZERO);
        let mut shown = String::new();
        let mut over = false;
        while !left.is_empty() {
            if interrupt.load(Ordering::SeqCst) {
                return Ok(Ended::Interrupted {
                    done: all - left.len(),
                    lost: vec![],
                });
            }
            let began = Instant::now();
            for number in left.keys().copied().collect::<Vec<_>>() {
                let trial = left[&number];
                if self.runner().is_done(trial)? {
                    left.remove(&number);
                    self.runner().report(trial, "", all - left.len(), all, None);
                    pause = pause.min(SOON);
                }
            }
            let looked = began.elapsed();
            if asked.elapsed() >= pause && !left.is_empty() {
                match self.queued() {
                    // A controller that is being restarted does not answer; the jobs go on.
                    Err(e) => tracing::warn!("{e}"),
                    Ok(jobs) => {
                        let state = state(&jobs, &left);
                        let alive = !jobs.is_empty() || left.values().any(|t| self.is_held(t));
                        if !alive && over {
                            return Ok(self.given_up(&left));
                        }
                        // What a job wrote last may not be seen yet.
                        over = !alive;
                        pause = match state == shown && alive {
                            true => (2 * pause).clamp(SOON, LATE),
                            false => SOON,
                        };
                        if alive && state != shown {
                            progress::line(&state);
                            shown = state;
                        }
                    }
                }
                asked = Instant::now();
            }
            std::thread::sleep(PAUSE.max(SHARE * looked));
        }
        Ok(Ended::All { failed: vec![] })
    }

    fn is_held(&self, trial: &Trial) -> bool {
        RunFolder::holder(&self.work.run_folder(trial)).is_some()
    }

    /// Trials that are not done and have no job, with what they said last.
    fn given_up(&self, left: &BTreeMap<usize, &Trial>) -> Ended {
        let words = |(number, trial): (&usize, &&Trial)| {
            let said = self.runner().said_last(trial);
            let said = match said.trim().is_empty() {
                true => "it said nothing".to_owned(),
                false => said,
            };
            (format!("trial {number}, {}", trial.id), said)
        };
        Ended::All {
            failed: left.iter().map(words).collect(),
        }
    }
}

/// `one trial is`, `3 trials are`.
fn are(count: usize) -> String {
    let verb = if count == 1 { "is" } else { "are" };
    format!("{} {verb}", counted(count, "trial"))
}

/// How many jobs are at work and what the others wait for.
fn state(jobs: &[Queued], left: &BTreeMap<usize, &Trial>) -> String {
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in jobs.iter().filter_map(|job| job.waits.as_deref()) {
        *waiting.entry(reason).or_default() += 1;
    }
    let wait: usize = waiting.values().sum();
    let mut words = vec![format!("{} at work", counted(jobs.len() - wait, "job"))];
    words.extend(
        waiting
            .iter()
            .map(|(reason, n)| format!("{n} waiting ({reason})")),
    );
    let have: BTreeSet<usize> = jobs.iter().filter_map(|job| job.number).collect();
    let without = left.keys().filter(|n| !have.contains(n)).count();
    if without > 0 {
        words.push(format!("{} not done and without a job", are(without)));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_explained() {
        let job = |number, waits: Option<&str>| Queued {
            id: "1".into(),
            number: Some(number),
            waits: waits.map(str::to_owned),
        };
        let jobs = [
            job(0, None),
            job(1, Some("Priority")),
            job(2, Some("Priority")),
            job(3, Some("Resources")),
        ];
        assert_eq!(
            state(&jobs, &BTreeMap::new()),
            "1 job at work, 2 waiting (Priority), 1 waiting (Resources)"
        );
        assert_eq!(state(&[], &BTreeMap::new()), "0 jobs at work");
    }
}
