//! Where a process runs: what tells two processes, and two machines, apart.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};

use serde::{Deserialize, Serialize};

use crate::engine::Job;

/// A process, told apart from every other one on any host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Name of the host.
    pub host: String,
    /// Number of the process there.
    pub process: u32,
    /// When it began to work, RFC 3339.
    pub since: String,
    /// Which start of which machine: Linux's boot id, empty elsewhere.
    #[serde(default)]
    boot: String,
    /// In which numbering of processes: containers have their own.
    #[serde(default)]
    namespace: String,
    /// When the process was started, in ticks since the boot: numbers are given again.
    #[serde(default)]
    ticks: u64,
    /// The job of a cluster's engine that it belongs to.
    #[serde(default)]
    pub job: Option<Job>,
    /// A number that nobody else has.
    #[serde(default)]
    token: u64,
}

impl Process {
    /// This one, which begins to work now.
    pub fn this() -> Self {
        let process = std::process::id();
        Self {
            host: host(),
            process,
            since: jiff::Timestamp::now().to_string(),
            boot: boot(),
            namespace: namespace(),
            ticks: ticks(process).unwrap_or_default(),
            job: Job::this(),
            token: RandomState::new().build_hasher().finish(),
        }
    }

    /// Whether it is at work; none where that can't be seen from here: on another host, in another container.
    pub fn is_alive(&self) -> Option<bool> {
        let here = (&self.host, &self.boot, &self.namespace) == (&host(), &boot(), &namespace());
        here.then(|| exists(self.process) && ticks(self.process).is_none_or(|t| t == self.ticks))
    }
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "process {} on host {}, since {}",
            self.process, self.host, self.since
        )?;
        match &self.job {
            Some(job) => write!(f, ", {job}"),
            None => Ok(()),
        }
    }
}

/// Name of this host.
pub fn host() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the buffer is as long as the call is told, and one byte longer than what it may fill.
    let failed = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let length = name.iter().position(|b| *b == 0).unwrap_or(0);
    if failed != 0 || length == 0 {
        return "localhost".into();
    }
    String::from_utf8_lossy(&name[..length]).into_owned()
}

/// The processor in words; empty where the system does not tell.
pub fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    line.map_or_else(String::new, |(_, name)| name.trim().to_owned())
}

fn boot() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map_or_else(
        |_| String::new(),
        |link| link.to_string_lossy().into_owned(),
    )
}

/// Whether there is a process of this number on this host that is not over.
pub(super) fn exists(process: u32) -> bool {
    let Ok(number) = libc::pid_t::try_from(process) else {
        return false;
    };
    // SAFETY: signal 0 asks whether the process is there and sends nothing.
    let refused = unsafe { libc::kill(number, 0) } != 0;
    let unknown = || std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
    // Of a process that nobody has waited for, only the exit status is left.
    !(refused && unknown()) && stat(process).is_none_or(|fields| fields[0] != "Z")
}

/// When a process was started, in ticks since the boot; none where `/proc` does not tell.
fn ticks(process: u32) -> Option<u64> {
    stat(process)?.get(19)?.parse().ok()
}

/// What `/proc` says of a process, from its state on (`proc_pid_stat(5)`, fields 3 and following).
fn stat(process: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything.
    let fields = text.rsplit_once(')')?.1.split_whitespace();
    let fields: Vec<String> = fields.map(str::to_owned).collect();
    (!fields.is_empty()).then_some(fields)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_living_the_dead_and_those_elsewhere() {
        let me = Process::this();
        assert_eq!(me.is_alive(), Some(true));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let other = Process {
            process: child.id(),
            ticks: ticks(child.id()).unwrap_or_default(),
            ..me.clone()
        };
        assert_eq!(other.is_alive(), Some(true));
        child.kill().unwrap();
        // Not yet waited for: its number is still taken.
        while other.is_alive() == Some(true) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(other.is_alive(), Some(false));
        let again = Process {
            ticks: me.ticks + 1,
            ..me.clone()
        };
        #[cfg(target_os = "linux")]
        assert_eq!(again.is_alive(), Some(false), "the number was given again");
        for elsewhere in [
            Process {
                host: "elsewhere".into(),
                ..me.clone()
            },
            Process {
                boot: "another".into(),
                ..me.clone()
            },
            Process {
                namespace: "another".into(),
                ..again
            },
        ] {
            assert_eq!(elsewhere.is_alive(), None, "{elsewhere}");
        }
    }
}
