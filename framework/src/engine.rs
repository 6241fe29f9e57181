//! Engines that start jobs on the machines of a cluster. All that is special to one of them is in this file.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::command::quoted;
use crate::error::{Error, Result};

/// So many seconds before a job's time is up it is warned, and has to save.
const WARNING: u32 = 120;
/// So often a job that was warned begins again by itself.
const RESTARTS: u32 = 50;
/// The most numbers of an array where the engine does not say: Slurm's default.
const ARRAY: usize = 1001;
/// States of Slurm's jobs whose processes can be there.
const AT_WORK: [&str; 8] = [
    "RUNNING",
    "COMPLETING",
    "CONFIGURING",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
];
/// Options that an order decides.
const DECIDED: [&str; 5] = ["array", "job-name", "parsable", "test-only", "wrap"];

/// Who starts jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// <https://slurm.schedmd.com>
    Slurm,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slurm => f.write_str("slurm"),
        }
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "slurm" => Ok(Self::Slurm),
            _ => Err(
                "the engine that is known is `slurm`; docs/cluster.md has recipes for others"
                    .into(),
            ),
        }
    }
}

/// A job of an engine, as its processes know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The engine's name.
    pub engine: String,
    /// What the engine's commands call it.
    pub id: String,
    /// How often it had been started before.
    pub attempt: u64,
}

impl Job {
    /// The job that this process belongs to.
    pub fn this() -> Option<Self> {
        let says = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let of_array = says("SLURM_ARRAY_JOB_ID").zip(says("SLURM_ARRAY_TASK_ID"));
        Some(Self {
            engine: Engine::Slurm.to_string(),
            id: match of_array {
                Some((array, task)) => format!("{array}_{task}"),
                None => says("SLURM_JOB_ID")?,
            },
            attempt: says("SLURM_RESTART_COUNT").map_or(0, |n| n.parse().unwrap_or(0)),
        })
    }

    /// Whether its engine says that it is over, or was started once more since; none where that can't be known.
    pub fn is_over(&self) -> Option<bool> {
        match self.engine.parse().ok()? {
            Engine::Slurm => {
                // Whoever asks waits; a controller that does not answer is asked for a minute and longer.
                let mut ask = Command::new("timeout");
                let out = ask.args(["20", "scontrol", "show", "job", "-o", &self.id]);
                self.is_over_by(&out.output().ok()?)
            }
        }
    }

    fn is_over_by(&self, out: &Output) -> Option<bool> {
        let said = [&out.stdout[..], &out.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let of = |key: &str| {
            said.split_whitespace()
                .find_map(|word| word.strip_prefix(key))
        };
        match of("JobState=") {
            Some(state) => {
                let attempt = of("Restarts=").and_then(|n| n.parse().ok());
                Some(
                    !AT_WORK.contains(&state) || attempt.is_some_and(|now: u64| now > self.attempt),
                )
            }
            // It is forgotten some minutes after its end.
            None if said.contains("Invalid job id") => Some(true),
            None if said.contains(&format!("Job {} not found", self.id)) => Some(true),
            None => None,
        }
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "job {} of {}", self.id, self.engine)
    }
}

/// What an engine is to start: a command, or one for each of some numbers.
#[derive(Debug, Clone)]
pub struct Order {
    /// By which its jobs are found again.
    pub name: String,
    /// The command, as a shell reads it.
    pub command: String,
    /// Each is added to the command in a job of its own; none for one job without a number.
    pub numbers: Option<Vec<usize>>,
    /// Jobs at once, where that is not the engine's to say.
    pub at_once: Option<u64>,
    /// Processors of a job.
    pub cpus: u64,
    /// Where the command is typed.
    pub folder: PathBuf,
    /// The file, or with numbers the folder, that gets what jobs say.
    pub said: PathBuf,
    /// Options of the engine's own, `KEY=VALUE` or `KEY`. They are stronger than what is said here.
    pub options: Vec<String>,
}

/// What is handed to an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The first number that it is for.
    pub first: usize,
    /// Its text.
    pub text: String,
}

/// A job that waits or works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// What the engine's commands call it, or the array that it is of.
    pub id: String,
    /// Its number, where it has one.
    pub number: Option<usize>,
    /// What it waits for, in the engine's words; none where it is at work.
    pub waits: Option<String>,
}

impl Engine {
    /// The name of the jobs that work in a folder: of the folder, and no other folder's.
    pub fn name_of(self, folder: &Path) -> String {
        // One that is not there yet is called as it will be.
        let whole = folder
            .canonicalize()
            .or_else(|_| std::path::absolute(folder));
        let whole = whole.unwrap_or_else(|_| folder.to_owned());
        let name = whole.file_name().unwrap_or_default().to_string_lossy();
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        };
        let name: String = name.chars().map(plain).take(40).collect();
        let hash = blake3::hash(whole.as_os_str().as_encoded_bytes()).to_hex();
        format!("{name}-{}", &hash[..8])
    }

    /// An option `KEY=VALUE` or `KEY` of this engine's as key and value.
    ///
    /// # Errors
    /// What is no such option, or is decided elsewhere.
    pub fn option(self, option: &str) -> Result<(&str, Option<&str>)> {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key.trim_start_matches('-'), Some(value)),
            None => (option.trim_start_matches('-'), None),
        };
        let why = if DECIDED.contains(&key) {
            "this is decided by what is submitted"
        } else if key.is_empty() || !key.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
            "this is not of the form KEY=VALUE"
        } else if option.contains(char::is_control) {
            "this has more than one line"
        } else {
            return Ok((key, value));
        };
        Err(Error::Incompatible {
            what: format!("--{self} {option}"),
            why: why.into(),
            help: format!(
                "give options of `sbatch` with their long names, for example `--{self} partition=gpu --{self} time=12:00:00`"
            ),
        })
    }

    /// Processors of a job by the engine's own options.
    pub fn cpus(self, options: &[String]) -> Option<u64> {
        let pairs = options.iter().filter_map(|o| self.option(o).ok());
        let mut counts = pairs.filter(|(key, _)| *key == "cpus-per-task");
        counts.next_back()?.1?.parse().ok()
    }

    /// The scripts of an order. There are several where an array can't have as many numbers.
    ///
    /// # Errors
    /// Options that are none.
    pub fn scripts(self, order: &Order) -> Result<Vec<Script>> {
        let Some(numbers) = &order.numbers else {
            let text = self.script(order, &order.name, None)?;
            return Ok(vec![Script { first: 0, text }]);
        };
        let most = self.array_size();
        let mut parts: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for number in numbers {
            let part = parts.entry(number / most * most).or_default();
            part.push(number % most);
        }
        let each = order
            .at_once
            .map(|n| (n / parts.len().max(1) as u64).max(1));
        let script = |(first, part): (&usize, &Vec<usize>)| {
            let array = ranges(part) + &each.map_or(String::new(), |n| format!("%{n}"));
            let name = match first {
                0 => order.name.clone(),
                first => format!("{}+{first}", order.name),
            };
            let text = self.script(order, &name, Some((*first, array)))?;
            Ok(Script {
                first: *first,
                text,
            })
        };
        parts.iter().map(script).collect()
    }

    fn script(self, order: &Order, name: &str, array: Option<(usize, String)>) -> Result<String> {
        let Order { command, cpus, .. } = order;
        let folder = order.folder.display().to_string();
        let said = order
            .folder
            .join(&order.said)
            .display()
            .to_string()
            .replace('%', "%%");
        let (said, number) = match &array {
            None => (said, String::new()),
            Some((0, _)) => (said + "/%A_%a.txt", " $SLURM_ARRAY_TASK_ID".into()),
            Some((first, _)) => (
                said + "/%A_%a.txt",
                format!(" $((SLURM_ARRAY_TASK_ID + {first}))"),
            ),
        };
        let mut lines = vec![format!("job-name={name}")];
        lines.extend(array.map(|(_, numbers)| format!("array={numbers}")));
        lines.extend([
            format!("cpus-per-task={cpus}"),
            format!("chdir={}", directive(&folder)?),
            format!("output={}", directive(&said)?),
            "open-mode=append".into(),
            "requeue".into(),
            format!("signal=B:USR1@{WARNING}"),
        ]);
        for option in &order.options {
            lines.push(match self.option(option)? {
                (key, Some(value)) => format!("{key}={}", directive(value)?),
                (key, None) => key.into(),
            });
        }
        let lines: String = lines.iter().map(|l| format!("#SBATCH --{l}\n")).collect();
        Ok(format!(
            "#!/bin/bash
{lines}
{command}{number} &
work=$!
# Some time before a job's time is up, Slurm warns this shell: the work is saved, and begins again when it is its turn.
warned=
trap 'warned=yes; kill -USR1 $work' USR1
trap 'kill -TERM $work' TERM
# A signal ends `wait`, but not what it waits for.
while kill -0 $work 2>/dev/null; do wait $work; done
wait $work
code=$?
if [ \"$warned\" ] && [ $code = 130 ] && [ \"${{SLURM_RESTART_COUNT:-0}}\" -lt {RESTARTS} ]; then
  scontrol requeue \"$SLURM_JOB_ID\"
fi
exit $code
"
        ))
    }

    /// How many numbers an array can have.
    fn array_size(self) -> usize {
        let asked = Command::new("scontrol").args(["show", "config"]).output();
        let text = asked.map_or(String::new(), |o| {
            String::from_utf8_lossy(&o.stdout).into_owned()
        });
        let mut lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("MaxArraySize"));
        let size = lines
            .next()
            .and_then(|l| l.trim_start_matches([' ', '=']).trim().parse().ok());
        size.filter(|size| *size > 0).unwrap_or(ARRAY)
    }

    /// Whether a script would be taken, without handing it over.
    ///
    /// # Errors
    /// What the engine has to say against it.
    pub fn check(self, script: &Path) -> Result<()> {
        self.ask(Command::new("sbatch").arg("--test-only").arg(script))
            .map(drop)
    }

    /// Hands a script over. Gives what the engine's commands call it.
    ///
    /// # Errors
    /// What the engine has to say against it.
    pub fn submit(self, script: &Path) -> Result<String> {
        let said = self.ask(Command::new("sbatch").arg("--parsable").arg(script))?;
        Ok(said.trim().split(';').next().unwrap_or_default().to_owned())
    }

    /// Jobs of an order's name that are not over.
    ///
    /// # Errors
    /// An engine that does not answer.
    pub fn queued(self, name: &str) -> Result<Vec<Queued>> {
        let mut ask = Command::new("timeout");
        let said =
            self.ask(ask.args(["60", "squeue", "--me", "-h", "-r", "-o", "%F|%K|%T|%r|%j"]))?;
        Ok(said.lines().filter_map(|line| queued(line, name)).collect())
    }

    /// What to type to cancel jobs.
    pub fn cancel(self, ids: &[String]) -> String {
        format!("scancel {}", ids.join(" "))
    }

    /// What a command of the engine says.
    fn ask(self, command: &mut Command) -> Result<String> {
        let failed = |why: String| Error::Incompatible {
            what: format!("--on {self}"),
            why,
            help: format!(
                "type it where jobs are submitted; `--{self} KEY=VALUE` gives `sbatch` what this cluster wants to know, \
                 and `sinfo` shows its partitions"
            ),
        };
        let name = command.get_program().to_string_lossy().into_owned();
        let out = command
            .output()
            .map_err(|e| failed(format!("`{name}` can't be started: {e}")))?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&out.stderr);
        let said: Vec<&str> = said
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .collect();
        Err(failed(match said.as_slice() {
            [] => format!("`{name}` failed: {}", out.status),
            said => said.join("; "),
        }))
    }
}

/// A line of `squeue`, if it is of a job of this name.
fn queued(line: &str, name: &str) -> Option<Queued> {
    let mut parts = line.splitn(5, '|');
    let mut next = || parts.next();
    let (id, number, state, reason, own) = (next()?, next()?, next()?, next()?, next()?);
    let first = match own.strip_prefix(name)? {
        "" => 0,
        more => more.strip_prefix('+')?.parse().ok()?,
    };
    Some(Queued {
        id: id.into(),
        number: number.parse().ok().map(|n: usize| n + first),
        waits: (!AT_WORK.contains(&state)).then(|| reason.into()),
    })
}

/// A value as Slurm reads it in a script.
fn directive(value: &str) -> Result<String> {
    if value.contains(char::is_control) {
        return Err(Error::Invalid {
            what: quoted(value),
            why: "a script for Slurm can't have it in a line".into(),
        });
    }
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,@%+*[]()&|~".contains(c);
    Ok(match value.chars().all(plain) {
        true => value.into(),
        false => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    })
}

/// Numbers that grow, as an array has them: `0-3,7`.
fn ranges(numbers: &[usize]) -> String {
    let mut found: Vec<(usize, usize)> = vec![];
    for &n in numbers {
        match found.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => found.push((n, n)),
        }
    }
    let shown = found.iter().map(|(a, b)| {
        if a == b {
            a.to_string()
        } else {
            format!("{a}-{b}")
        }
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn order(numbers: Option<Vec<usize>>) -> Order {
        Order {
            name: "toy-12345678".into(),
            command: "nasfw trial runs/toy".into(),
            numbers,
            at_once: Some(7),
            cpus: 2,
            folder: "/home/me/my thesis".into(),
            said: "runs/50%".into(),
            options: vec![
                "--partition=gpu".into(),
                "exclusive".into(),
                "comment=a \"b\"".into(),
            ],
        }
    }

    #[test]
    fn an_order_of_many_numbers_is_split_and_every_number_is_in_it_once() {
        let numbers: Vec<usize> = (0..2500).filter(|n| n % 10 != 9 && *n != 1001).collect();
        let scripts = Engine::Slurm
            .scripts(&order(Some(numbers.clone())))
            .unwrap();
        assert_eq!(
            scripts.iter().map(|s| s.first).collect::<Vec<_>>(),
            [0, 1001, 2002]
        );
        let mut found = vec![];
        for script in &scripts {
            let line = |start: &str| {
                let mut lines = script.text.lines();
                lines
                    .find_map(|l| l.strip_prefix(start))
                    .unwrap()
                    .to_owned()
            };
            let array = line("#SBATCH --array=");
            // Seven at once, in three arrays.
            let array = array.strip_suffix("%2").unwrap();
            for range in array.split(',') {
                let (a, b) = range.split_once('-').unwrap_or((range, range));
                let (a, b): (usize, usize) = (a.parse().unwrap(), b.parse().unwrap());
                assert!(b < 1001);
                found.extend((a..=b).map(|n| n + script.first));
            }
            let task = line("nasfw trial runs/toy ");
            let name = line("#SBATCH --job-name=");
            let queued = |n: &str| queued(&format!("12|{n}|RUNNING|None|{name}"), "toy-12345678");
            assert_eq!(queued("3").unwrap().number, Some(script.first + 3));
            match script.first {
                0 => assert_eq!(task, "$SLURM_ARRAY_TASK_ID &"),
                first => assert_eq!(task, format!("$((SLURM_ARRAY_TASK_ID + {first})) &")),
            }
        }
        assert_eq!(found, numbers);
    }

    #[test]
    fn values_of_any_kind_stay_in_their_line() {
        let [script] = Engine::Slurm
            .scripts(&order(None))
            .unwrap()
            .try_into()
            .unwrap();
        for line in [
            "#SBATCH --chdir=\"/home/me/my thesis\"",
            "#SBATCH --output=\"/home/me/my thesis/runs/50%%\"",
            "#SBATCH --partition=gpu",
            "#SBATCH --exclusive",
            "#SBATCH --comment=\"a \\\"b\\\"\"",
            "nasfw trial runs/toy &",
        ] {
            assert!(
                script.text.lines().any(|l| l == line),
                "{line}: {}",
                script.text
            );
        }
        for wrong in [
            "",
            "=x",
            "array=1",
            "--job-name=x",
            "a=b\nrm -rf",
            "Partition=x",
        ] {
            assert!(Engine::Slurm.option(wrong).is_err(), "{wrong}");
        }
        let options = ["cpus-per-task=2", "cpus-per-task=3"].map(String::from);
        assert_eq!(Engine::Slurm.cpus(&options), Some(3));
        assert_eq!(Engine::Slurm.cpus(&[]), None);
    }

    #[test]
    fn other_peoples_jobs_are_not_taken_for_ones_own() {
        for line in [
            "1|N/A|RUNNING|None|toy-2",
            "1|2|RUNNING|None|toy",
            "1|2|RUNNING|None|toy-1x",
            "no job",
        ] {
            assert_eq!(queued(line, "toy-1"), None, "{line}");
        }
        let waits = queued("1|N/A|PENDING|Resources|toy-1", "toy-1").unwrap();
        assert_eq!(
            (waits.number, waits.waits.as_deref()),
            (None, Some("Resources"))
        );
    }

    #[test]
    fn a_job_is_over_when_its_engine_says_so() {
        let job = Job {
            engine: "slurm".into(),
            id: "7_1".into(),
            attempt: 1,
        };
        let says = |stdout: &str, stderr: &str| {
            job.is_over_by(&Output {
                status: std::process::ExitStatus::from_raw(0),
                stdout: stdout.into(),
                stderr: stderr.into(),
            })
        };
        assert_eq!(
            says("JobId=8 JobState=RUNNING Restarts=1 x", ""),
            Some(false)
        );
        assert_eq!(
            says("JobId=8 JobState=RUNNING Restarts=2 x", ""),
            Some(true)
        );
        assert_eq!(
            says("JobId=8 JobState=PENDING Restarts=1 x", ""),
            Some(true)
        );
        assert_eq!(
            says("JobId=8 JobState=NODE_FAIL Restarts=1 x", ""),
            Some(true)
        );
        assert_eq!(
            says("", "slurm_load_jobs error: Invalid job id specified"),
            Some(true)
        );
        assert_eq!(says("Job 7_1 not found", ""), Some(true));
        assert_eq!(says("", "Unable to contact slurm controller"), None);
        let other = Job {
            engine: "another".into(),
            ..job
        };
        assert_eq!(other.is_over(), None);
    }
}
