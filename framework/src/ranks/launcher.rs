//! Launchers of several processes, and what each of them tells its processes by their environment.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use nasfw_kernels::group::Meeting;

use crate::error::{Error, Result};

/// Ports that processes meet at where nobody says one.
const PORTS: std::ops::Range<u64> = 20_000..30_000;

/// Who started the processes of a run. It is always said: the variables of one are often there under another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Launcher {
    /// PyTorch's `torchrun`, and whoever sets the same variables: `RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`.
    Torchrun,
    /// A step of Slurm, begun by `srun`.
    Slurm,
    /// `mpirun` of Open MPI, MPICH or Intel MPI.
    Mpi,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Torchrun => "torchrun",
            Self::Slurm => "slurm",
            Self::Mpi => "mpi",
        })
    }
}

impl FromStr for Launcher {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Torchrun, Self::Slurm, Self::Mpi];
        all.into_iter()
            .find(|launcher| launcher.to_string() == name)
            .ok_or_else(|| {
                "the launchers that are known are `torchrun`, `slurm` (its `srun`) and `mpi` (`mpirun`)"
                    .into()
            })
    }
}

/// Where a process stands among the others, as its launcher says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Where process 0 is.
    host: String,
    port: u16,
    rank: usize,
    world: usize,
    /// What no other start has.
    start: String,
    /// Whether the launcher serves the store that they meet at; else process 0 does.
    served: bool,
    /// Number of this process on its host.
    local: usize,
}

impl Launcher {
    /// Where the processes meet, and the number of this one on its host, by what the environment says; `says` gives a variable
    /// that is set and not empty.
    pub(super) fn meeting(
        self,
        says: impl Fn(&str) -> Option<String>,
        timeout: Duration,
    ) -> Result<(Meeting, usize)> {
        let env = Environment {
            launcher: self,
            says,
        };
        let place = match self {
            Self::Torchrun => env.torchrun()?,
            Self::Slurm => env.slurm()?,
            Self::Mpi => env.mpi()?,
        };
        let (rank, world) = (place.rank, place.world);
        if rank >= world {
            return Err(env.wrong(format!("process {rank} of {world} makes no sense")));
        }
        let meeting = Meeting {
            host: place.host,
            port: place.port,
            rank,
            world,
            serves: rank == 0 && !place.served,
            prefix: place.start,
            interface: (env.says)("GLOO_SOCKET_IFNAME"),
            timeout,
        };
        Ok((meeting, place.local))
    }

    /// How processes are started by it.
    fn example(self) -> &'static str {
        match self {
            Self::Torchrun => {
                "start all of them by it: `torchrun --no-python --nproc-per-node 2 nasfw run --ranks torchrun …`"
            }
            Self::Slurm => {
                "start all of them by it, in a job: `srun --ntasks 2 nasfw run --ranks slurm …`"
            }
            Self::Mpi => {
                "start all of them by it: `mpirun -n 2 nasfw run --ranks mpi …`, on several hosts with `-x \
                 MASTER_ADDR=HOST -x MASTER_PORT=29500`"
            }
        }
    }
}

struct Environment<F> {
    launcher: Launcher,
    says: F,
}

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    fn wrong(&self, why: String) -> Error {
        Error::Incompatible {
            what: format!("--ranks {}", self.launcher),
            why,
            help: self.launcher.example().into(),
        }
    }

    /// The first of some variables that is set.
    fn any(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| (self.says)(name))
    }

    fn text(&self, names: &[&str]) -> Result<String> {
        self.any(names).ok_or_else(|| {
            self.wrong(format!(
                "this process was not started by it: {} is not set",
                names.join(" or ")
            ))
        })
    }

    fn number<N: FromStr>(&self, names: &[&str]) -> Result<N> {
        let text = self.text(names)?;
        text.parse()
            .map_err(|_| self.wrong(format!("{} is `{text}`, no number", names[0])))
    }

    /// A number, 0 where nobody says it.
    fn number_or_zero(&self, names: &[&str]) -> Result<usize> {
        match self.any(names) {
            Some(_) => self.number(names),
            None => Ok(0),
        }
    }

    /// The port that is said, or one that follows from a text that all processes of a start know, and others don't.
    fn port(&self, start: &str) -> Result<u16> {
        if self.any(&["MASTER_PORT"]).is_some() {
            return self.number(&["MASTER_PORT"]);
        }
        let hash = blake3::hash(start.as_bytes());
        let number = hash.as_bytes().iter().take(4);
        let number = number.fold(0, |sum, byte| sum * 256 + u64::from(*byte));
        Ok((PORTS.start + number % (PORTS.end - PORTS.start)) as u16)
    }

    fn torchrun(&self) -> Result<Place> {
        let attempt = self.any(&["TORCHELASTIC_RESTART_COUNT"]);
        Ok(Place {
            host: self.text(&["MASTER_ADDR"])?,
            port: self.number(&["MASTER_PORT"])?,
            rank: self.number(&["RANK"])?,
            world: self.number(&["WORLD_SIZE"])?,
            start: format!("nasfw/attempt {}", attempt.unwrap_or_default()),
            // The agent's store outlives the processes that it starts again.
            served: self
                .any(&["TORCHELASTIC_USE_AGENT_STORE"])
                .is_some_and(|s| s == "True"),
            local: self.number_or_zero(&["LOCAL_RANK"])?,
        })
    }

    fn slurm(&self) -> Result<Place> {
        // A batch script has SLURM_PROCID as well; only what `srun` starts is a step.
        let step = self.text(&["SLURM_STEP_ID"])?;
        let job = self.text(&["SLURM_JOB_ID"])?;
        let attempt = self.any(&["SLURM_RESTART_COUNT"]).unwrap_or_default();
        let start = format!("slurm {job}.{step} {attempt}");
        let one_host = self
            .any(&["SLURM_STEP_NUM_NODES"])
            .is_some_and(|n| n == "1");
        Ok(Place {
            host: match self.any(&["MASTER_ADDR"]) {
                Some(host) => host,
                None if one_host => "127.0.0.1".into(),
                None => first_host(&self.text(&["SLURM_STEP_NODELIST"])?),
            },
            port: self.port(&start)?,
            rank: self.number(&["SLURM_PROCID"])?,
            world: self.number(&["SLURM_STEP_NUM_TASKS"])?,
            start,
            served: false,
            local: self.number(&["SLURM_LOCALID"])?,
        })
    }

    fn mpi(&self) -> Result<Place> {
        let rank = self.number(&["OMPI_COMM_WORLD_RANK", "PMI_RANK"])?;
        let world: usize = self.number(&["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])?;
        let here = self.any(&["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"]);
        let start = self.any(&["PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "PMI_JOBID"]);
        let start = format!("mpi {}", start.unwrap_or_default());
        Ok(Place {
            host: match self.any(&["MASTER_ADDR"]) {
                Some(host) => host,
                None if here.is_some_and(|n| n == world.to_string()) => "127.0.0.1".into(),
                None => {
                    return Err(self.wrong(
                        "the processes are on several hosts, and MASTER_ADDR does not say where process 0 is"
                            .into(),
                    ));
                }
            },
            port: self.port(&start)?,
            rank,
            world,
            start,
            served: false,
            local: self.number_or_zero(&["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID"])?,
        })
    }
}

/// The first host of a list as Slurm writes it: `a1`, `a1,b7`, `a[01-04,9],b`, `rack[2-3]n[1,5]`.
fn first_host(list: &str) -> String {
    let mut host = String::new();
    let mut rest = list;
    while let Some(end) = rest.find(['[', ',']) {
        host.push_str(&rest[..end]);
        if rest[end..].starts_with(',') {
            return host;
        }
        let (range, after) = rest[end + 1..]
            .split_once(']')
            .unwrap_or((&rest[end + 1..], ""));
        host.push_str(range.split([',', '-']).next().unwrap_or_default());
        rest = after;
    }
    host + rest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place(launcher: Launcher, set: &[(&str, &str)]) -> Result<(Meeting, usize)> {
        let says = |name: &str| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        launcher.meeting(says, Duration::from_secs(7))
    }

    #[test]
    fn the_first_host_of_a_list() {
        for (list, first) in [
            ("a1", "a1"),
            ("a1,b7", "a1"),
            ("a[01-04,9],b", "a01"),
            ("a[3,5]", "a3"),
            ("rack[2-3]n[1,5],x", "rack2n1"),
            ("n[08-11]-ib", "n08-ib"),
            ("", ""),
        ] {
            assert_eq!(first_host(list), first, "{list}");
        }
    }

    #[test]
    fn torchrun_says_it_all() {
        let mut set = vec![
            ("RANK", "3"),
            ("WORLD_SIZE", "4"),
            ("LOCAL_RANK", "1"),
            ("MASTER_ADDR", "head"),
            ("MASTER_PORT", "29500"),
            ("GLOO_SOCKET_IFNAME", "eth1"),
        ];
        let (m, local) = place(Launcher::Torchrun, &set).unwrap();
        assert_eq!(local, 1);
        assert_eq!(
            (m.host.as_str(), m.port, m.rank, m.world),
            ("head", 29500, 3, 4)
        );
        assert_eq!((m.serves, m.timeout), (false, Duration::from_secs(7)));
        assert_eq!(m.interface.as_deref(), Some("eth1"));
        // Process 0 serves the store, unless torchrun's agent does, whose store is there at the next start, too.
        set[0] = ("RANK", "0");
        let first = place(Launcher::Torchrun, &set).unwrap().0;
        assert!(first.serves);
        set.push(("TORCHELASTIC_USE_AGENT_STORE", "True"));
        set.push(("TORCHELASTIC_RESTART_COUNT", "2"));
        let again = place(Launcher::Torchrun, &set).unwrap().0;
        assert!(!again.serves && again.prefix != first.prefix);
    }

    #[test]
    fn slurm_is_a_step_and_not_its_batch_script() {
        let batch = [
            ("SLURM_JOB_ID", "12"),
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "2"),
            ("SLURM_LOCALID", "0"),
        ];
        let error = place(Launcher::Slurm, &batch).unwrap_err();
        assert!(error.help().unwrap().contains("srun"), "{error}");
        let step = [
            ("SLURM_STEP_ID", "0"),
            ("SLURM_STEP_NUM_TASKS", "2"),
            ("SLURM_STEP_NUM_NODES", "2"),
            ("SLURM_STEP_NODELIST", "n[07-08]"),
        ];
        let mut set: Vec<_> = batch.into_iter().chain(step).collect();
        let m = place(Launcher::Slurm, &set).unwrap().0;
        assert_eq!(
            (m.host.as_str(), m.rank, m.world, m.serves),
            ("n07", 0, 2, true)
        );
        assert!(PORTS.contains(&m.port.into()));
        // Another job on the same hosts meets elsewhere.
        set[0] = ("SLURM_JOB_ID", "13");
        let other = place(Launcher::Slurm, &set).unwrap().0;
        assert_ne!((other.port, &other.prefix), (m.port, &m.prefix));
        set.push(("MASTER_PORT", "4444"));
        assert_eq!(place(Launcher::Slurm, &set).unwrap().0.port, 4444);
    }

    #[test]
    fn mpi_needs_an_address_only_on_several_hosts() {
        let mut set = vec![
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ];
        let (m, local) = place(Launcher::Mpi, &set).unwrap();
        assert_eq!((m.host.as_str(), local), ("127.0.0.1", 1));
        set[3] = ("OMPI_COMM_WORLD_LOCAL_SIZE", "1");
        let error = place(Launcher::Mpi, &set).unwrap_err();
        assert!(error.help().unwrap().contains("MASTER_ADDR"), "{error}");
        set.push(("MASTER_ADDR", "head"));
        assert_eq!(place(Launcher::Mpi, &set).unwrap().0.host, "head");
        let pmi = [
            ("PMI_RANK", "1"),
            ("PMI_SIZE", "2"),
            ("MPI_LOCALNRANKS", "2"),
        ];
        assert_eq!(place(Launcher::Mpi, &pmi).unwrap().0.rank, 1);
    }

    #[test]
    fn nonsense_is_refused_with_what_to_type() {
        for launcher in [Launcher::Torchrun, Launcher::Slurm, Launcher::Mpi] {
            let error = place(launcher, &[]).unwrap_err();
            assert!(error.to_string().contains("not started by it"), "{error}");
        }
        let set = |rank, port| {
            [
                ("RANK", rank),
                ("WORLD_SIZE", "2"),
                ("MASTER_ADDR", "head"),
                ("MASTER_PORT", port),
            ]
        };
        for (rank, port) in [("2", "1"), ("one", "1"), ("-1", "1"), ("0", "65536")] {
            let error = place(Launcher::Torchrun, &set(rank, port)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
        assert!("Slurm".parse::<Launcher>().is_err());
    }
}
