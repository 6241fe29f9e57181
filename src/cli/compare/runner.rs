//! Trials as processes of this very program, several at once.
//!
//! What is to be done next for a trial is read from its folder alone, so that nothing is forgotten when this process is
//! killed. Children are told to save and end when it dies, and a folder's lock keeps a second writer out.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::HumanDuration;
use nasfw_analysis::compare::{LOG_END, LOGS, RANKING, Rank, Ranking, TRIALS, Trial, error_file};
use nasfw_framework::command::{command, itself};
use nasfw_framework::config::environment_key;
use nasfw_framework::device::{EVERY_CUDA, visible_gpus};
use nasfw_framework::run::{RESULT, RUN, RunFolder, read_json, write_whole};
use nasfw_framework::trainer::Outcome;
use nasfw_framework::{Error, Result, input};

use crate::cli::progress;

/// Lines that are kept of what a failed trial said.
const LAST_LINES: usize = 15;
/// What asks a trial to save and end. It may have come to the child already, from whoever ended this process, so it is
/// one of those that never end a program at once.
const SAVE: libc::c_int = libc::SIGUSR1;
/// Exit code of a process that was stopped and has saved.
const SAVED: i32 = 130;
/// Exit code of a process that found another one at work, among others.
const HELD: i32 = 4;
/// A signal that is sent to several processes reaches all of them within this.
const MOMENT: Duration = Duration::from_secs(1);
/// How often processes are looked after.
const PAUSE: Duration = Duration::from_millis(20);

/// How the work on a comparison ended.
#[derive(Debug)]
pub enum Ended {
    /// By a signal.
    Interrupted {
        /// Trials that are done.
        done: usize,
        /// Trials at work whose processes did not end as one does that has saved, with how they ended.
        lost: Vec<String>,
    },
    /// There is nothing left to do but what failed: names and last lines.
    All {
        /// Trials that failed.
        failed: Vec<(String, String)>,
    },
}

/// Carries out trials.
#[derive(Debug, Clone, Copy)]
pub struct Runner<'a> {
    /// The comparison's folder.
    pub folder: &'a Path,
    /// Whether supernets are ranked.
    pub rank: Option<Rank>,
    /// The metric that is compared, where the plan names one.
    pub metric: Option<&'a str>,
    /// Trials at once.
    pub jobs: usize,
}

/// A process at work.
struct Running<'a> {
    trial: &'a Trial,
    arguments: Vec<String>,
    child: Child,
    began: Instant,
    /// Which of the trials at once it is.
    place: usize,
}

impl Runner<'_> {
    /// Carries out what is left to do.
    pub fn run(&self, trials: &[Trial], interrupt: &AtomicBool) -> Result<Ended> {
        let logs = self.folder.join(LOGS);
        fs::create_dir_all(&logs).map_err(Error::io("create the folder", &logs))?;
        let mut waiting = VecDeque::new();
        for trial in trials {
            if self.arguments(trial)?.is_some() {
                waiting.push_back((trial, Instant::now()));
            }
        }
        let mut done = trials.len() - waiting.len();
        if done > 0 {
            progress::line(&format!(
                "{done} of {} trials are done already",
                trials.len()
            ));
        }
        let gpus = match waiting.iter().any(|(trial, _)| wants_a_gpu(trial)) {
            true => visible_gpus(),
            false => vec![],
        };
        let (began, before) = (Instant::now(), done);
        let mut running: Vec<Running<'_>> = vec![];
        let mut failed = vec![];
        let mut told = false;
        while !(waiting.is_empty() && running.is_empty()) {
            if interrupt.load(Ordering::SeqCst) {
                let lost = stop(running);
                return Ok(Ended::Interrupted { done, lost });
            }
            for _ in 0..waiting.len() {
                if running.len() >= self.jobs {
                    break;
                }
                let Some((trial, since)) = waiting.pop_front() else {
                    break;
                };
                if RunFolder::holder(&run_folder(self.folder, trial)).is_some() {
                    if !told && since.elapsed() > Duration::from_secs(2) {
                        progress::line(&format!(
                            "waiting for another process that works on {}",
                            trial.id
                        ));
                        told = true;
                    }
                    waiting.push_back((trial, since));
                    continue;
                }
                match self.arguments(trial)? {
                    Some(arguments) => {
                        let taken = |place: &usize| running.iter().any(|r| r.place == *place);
                        let place = (0..).find(|place| !taken(place)).unwrap_or_default();
                        let gpu = gpu_of(trial, place, &gpus);
                        running.push(self.start(trial, arguments, Instant::now(), place, gpu)?);
                    }
                    None => done += 1,
                }
            }
            let mut i = 0;
            while i < running.len() {
                let status = running[i].child.try_wait();
                let Some(status) = status.map_err(Error::io("wait for", &running[i].trial.id))?
                else {
                    i += 1;
                    continue;
                };
                let ended = running.swap_remove(i);
                if status.code() == Some(SAVED) && asked_soon(interrupt) {
                    // The signal that ended it was sent to all of us, and it was the faster one.
                    let lost = stop(running);
                    return Ok(Ended::Interrupted { done, lost });
                }
                match self.next(&ended, status)? {
                    Next::Wait => waiting.push_back((ended.trial, Instant::now())),
                    Next::Step(arguments) => {
                        let gpu = gpu_of(ended.trial, ended.place, &gpus);
                        let (trial, began, place) = (ended.trial, ended.began, ended.place);
                        running.push(self.start(trial, arguments, began, place, gpu)?);
                        i += 1;
                    }
                    Next::Done => {
                        done += 1;
                        let each =
                            began.elapsed() / u32::try_from(done - before).unwrap_or(u32::MAX);
                        let left = trials.len() - done - failed.len();
                        let took = format!(": {:.1} s", ended.began.elapsed().as_secs_f64());
                        let left = (done < trials.len()).then(|| each * left as u32);
                        self.report(ended.trial, &took, done, trials.len(), left);
                    }
                    Next::Failed(lines) => {
                        let last = lines
                            .lines()
                            .rfind(|l| !l.trim().is_empty())
                            .unwrap_or_default();
                        progress::line(&format!("{} failed: {}", ended.trial.id, last.trim()));
                        write_whole(&error_file(self.folder, &ended.trial.id), lines.as_bytes())?;
                        failed.push((ended.trial.id.clone(), lines));
                    }
                }
            }
            std::thread::sleep(PAUSE);
        }
        Ok(Ended::All { failed })
    }

    /// What to type next for a trial, for people, with its number.
    pub fn next_command(&self, number: usize, trial: &Trial) -> Result<String> {
        Ok(match self.arguments(trial)? {
            Some(arguments) => format!("{}  # trial {number}", command(arguments)),
            None => format!("# trial {number} is done: {}", trial.id),
        })
    }

    /// Whether there is nothing left to do for a trial.
    pub fn is_done(&self, trial: &Trial) -> Result<bool> {
        Ok(self.arguments(trial)?.is_none())
    }

    /// The arguments of the next process of a trial; none when it is done.
    fn arguments(&self, trial: &Trial) -> Result<Option<Vec<String>>> {
        let path = run_folder(self.folder, trial);
        let run = path.display().to_string();
        let data_dir = trial.options.iter().find(|o| o.0 == "data_dir");
        let moved = data_dir.map(|(_, value, _)| {
            let plain: Option<String> = value
                .parse::<toml::Value>()
                .ok()
                .and_then(|v| v.as_str().map(str::to_owned));
            [
                "--data-dir".to_owned(),
                plain.unwrap_or_else(|| value.clone()),
            ]
        });
        let with = |words: &[&str]| -> Vec<String> {
            let words = words.iter().map(|w| (*w).to_owned());
            words.chain(moved.iter().flatten().cloned()).collect()
        };
        if path.join(RESULT).exists() {
            return match self.rank {
                Some(rank) if self.wants_ranking(&path, rank)? => {
                    let mut arguments = with(&["rank", &run]);
                    arguments.push(format!("--architectures={}", rank.architectures));
                    arguments.extend(rank.batches.map(|b| format!("--batches={b}")));
                    arguments.extend(self.metric.map(|m| format!("--metric={m}")));
                    // The same architectures for every strategy of a seed.
                    arguments.push(format!("--seed={}", trial.seed));
                    Ok(Some(arguments))
                }
                _ => Ok(None),
            };
        }
        if path.join(RUN).exists() {
            return Ok(Some(with(&["resume", &run])));
        }
        let out = self.folder.join(TRIALS).display().to_string();
        // On a network file system a folder can look older than it is: what there is to do, the process sees for itself.
        let mut arguments: Vec<String> = ["run", "--name", &trial.id, "--resume", "--out", &out]
            .map(str::to_owned)
            .to_vec();
        for (key, value, _) in &trial.options {
            arguments.push("--set".into());
            arguments.push(format!("{key}={value}"));
        }
        Ok(Some(arguments))
    }

    /// Whether a finished run has a supernet to rank that is not ranked as the plan says.
    fn wants_ranking(&self, run: &Path, rank: Rank) -> Result<bool> {
        // A file that can't be understood is the business of what reads all of them.
        let outcome = match read_json::<Outcome>(&run.join(RESULT), "") {
            Err(Error::Run { .. }) => return Ok(false),
            read => read?,
        };
        if outcome.marginals.is_none() {
            return Ok(false);
        }
        let ranking = read_json::<Ranking>(&run.join(RANKING), "").ok();
        let as_planned = |r: &Ranking| {
            (r.asked, r.batches) == (rank.architectures, rank.batches)
                && self.metric.is_none_or(|m| m == r.metric)
        };
        Ok(!ranking.as_ref().is_some_and(as_planned))
    }

    fn start<'t>(
        &self,
        trial: &'t Trial,
        arguments: Vec<String>,
        began: Instant,
        place: usize,
        gpu: Option<&str>,
    ) -> Result<Running<'t>> {
        let error = error_file(self.folder, &trial.id);
        if error.exists() {
            fs::remove_file(&error).map_err(Error::io("remove", &error))?;
        }
        let mut command = itself().map_err(Error::io("find", "this program"))?;
        let log = self.log(trial);
        // Where two processes begin the same trial, and one of them has to leave it, both can be read.
        let file = File::options().create(true).append(true).open(&log);
        let file = file.map_err(Error::io("create", &log))?;
        file.set_len(0).map_err(Error::io("shorten", &log))?;
        let program = command.get_program().to_owned();
        command
            .args(&arguments)
            .env("NASFW_NO_PROGRESS", "1")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            // Ctrl-C goes to this process alone, which passes it on once.
            .process_group(0);
        // The plan alone decides what a trial is.
        for (name, _) in std::env::vars_os() {
            if name.to_str().and_then(environment_key).is_some() {
                command.env_remove(name);
            }
        }
        if let Some(gpu) = gpu {
            command.env("CUDA_VISIBLE_DEVICES", gpu);
        }
        save_when_this_process_dies(&mut command);
        let child = command.spawn().map_err(Error::io("start", &program))?;
        Ok(Running {
            trial,
            arguments,
            child,
            began,
            place,
        })
    }

    fn log(&self, trial: &Trial) -> std::path::PathBuf {
        self.folder.join(LOGS).join(format!("{}.log", trial.id))
    }

    /// What comes after a process that has ended.
    fn next(&self, ended: &Running<'_>, status: ExitStatus) -> Result<Next> {
        let mut lines = self.said_last(ended.trial);
        if status.success() {
            match self.arguments(ended.trial)? {
                None => return Ok(Next::Done),
                Some(arguments) if arguments[0] != ended.arguments[0] => {
                    return Ok(Next::Step(arguments));
                }
                Some(_) => lines += "\nit ended well but left no result",
            }
        } else if status.code() == Some(HELD) && self.is_others(ended)? {
            return Ok(Next::Wait);
        } else if let Some(signal) = status.signal() {
            lines += &format!("\nended by signal {signal}");
        }
        Ok(Next::Failed(lines))
    }

    /// Whether another process was faster, and works on the trial or is through with the run.
    fn is_others(&self, ended: &Running<'_>) -> Result<bool> {
        let run = run_folder(self.folder, ended.trial);
        let over = self.arguments(ended.trial)?.is_none_or(|a| a[0] == "rank");
        Ok(over && ended.arguments[0] != "rank" || RunFolder::holder(&run).is_some())
    }

    /// What a trial said last, and how it failed if it did.
    pub fn said_last(&self, trial: &Trial) -> String {
        let error = error_file(self.folder, &trial.id);
        let read = |file: &Path| input::last_lines(file, LOG_END);
        let text = read(&error).or_else(|_| read(&self.log(trial)));
        let text = text.unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// Says that a trial is done, `took` how long it took, and `left` how long the others will.
    pub fn report(
        &self,
        trial: &Trial,
        took: &str,
        done: usize,
        all: usize,
        left: Option<Duration>,
    ) {
        let result = run_folder(self.folder, trial).join(RESULT);
        let regret = read_json::<Outcome>(&result, "")
            .ok()
            .and_then(|o| o.regret)
            .and_then(|r| {
                let shown = |name: &str| match self.metric {
                    Some(metric) => name == metric,
                    None => !name.starts_with("valid"),
                };
                r.into_iter().find(|(name, _)| shown(name))
            });
        let regret = regret.map_or(String::new(), |(name, r)| format!(", {name} regret {r:.4}"));
        let left = left.map_or(String::new(), |left| {
            format!(", about {} left", HumanDuration(left))
        });
        progress::line(&format!("{done}/{all} {}{took}{regret}{left}", trial.id));
    }
}

enum Next {
    Wait,
    Step(Vec<String>),
    Done,
    Failed(String),
}

/// Asks all processes to save and end, and waits until they have. Gives those that did something else.
fn stop(mut running: Vec<Running<'_>>) -> Vec<String> {
    for r in &running {
        if let Ok(pid) = libc::pid_t::try_from(r.child.id()) {
            // SAFETY: the child has not been waited for, so its number is still its own.
            unsafe { libc::kill(pid, SAVE) };
        }
    }
    let ended = running.iter_mut().filter_map(|r| {
        let how = match r.child.wait() {
            Ok(status) if status.success() || status.code() == Some(SAVED) => return None,
            // Nothing of a ranking is kept before its end.
            Ok(_) if r.arguments[0] == "rank" => return None,
            Ok(status) => status.to_string(),
            Err(e) => e.to_string(),
        };
        Some(format!("{} ({how})", r.trial.id))
    });
    ended.collect()
}

/// Whether this process is asked to stop within a moment.
fn asked_soon(interrupt: &AtomicBool) -> bool {
    let began = Instant::now();
    while began.elapsed() < MOMENT {
        if interrupt.load(Ordering::SeqCst) {
            return true;
        }
        std::thread::sleep(PAUSE);
    }
    false
}

/// The system sends [`SAVE`] to the child when this process dies, however it dies. Elsewhere than on Linux a child then
/// works on to its end, and the folder's lock makes the next comparison wait for it.
fn save_when_this_process_dies(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        let ask = move || {
            // SAFETY: both are plain system calls that touch no memory of this process.
            let (set, now) =
                unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, SAVE), libc::getppid()) };
            if set != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // It may have died in between.
            if u32::try_from(now) != Ok(parent) {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            Ok(())
        };
        // SAFETY: `ask` calls only what may be called between fork and exec.
        unsafe { command.pre_exec(ask) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// Whether a trial is to have a GPU of its own.
fn wants_a_gpu(trial: &Trial) -> bool {
    let device = trial.options.iter().find(|o| o.0 == "device");
    device.is_some_and(|o| o.1.trim_matches('"') == EVERY_CUDA)
}

/// The GPU of a trial at a place: one after the other, and again from the first on where there are more trials than GPUs.
fn gpu_of<'g>(trial: &Trial, place: usize, gpus: &'g [String]) -> Option<&'g str> {
    let gpu = gpus.get(place.checked_rem(gpus.len())?)?;
    wants_a_gpu(trial).then_some(gpu)
}

/// Where a trial's run is.
fn run_folder(folder: &Path, trial: &Trial) -> PathBuf {
    folder.join(TRIALS).join(&trial.id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn trials_at_once_have_a_gpu_each() {
        let trial = |device: &str| -> Trial {
            let budget = json!({"unit": "none", "amount": 0});
            let options = json!([
                ["epochs", "3", "plan.toml"],
                ["device", device, "plan.toml"]
            ]);
            serde_json::from_value(
                json!({"id": "a", "strategy": "darts", "space": "darts", "dataset": null,
                "budget": budget, "seed": 0, "options": options}),
            )
            .unwrap()
        };
        let gpus = ["4", "GPU-7", "2"].map(str::to_owned);
        let all = trial("\"cuda:*\"");
        let placed: Vec<_> = (0..5).map(|place| gpu_of(&all, place, &gpus)).collect();
        assert_eq!(placed, ["4", "GPU-7", "2", "4", "GPU-7"].map(Some));
        assert_eq!(gpu_of(&all, 1, &[]), None);
        for other in ["cuda", "cuda:1", "auto", "cpu"] {
            assert_eq!(gpu_of(&trial(other), 1, &gpus), None, "{other}");
        }
    }
}
