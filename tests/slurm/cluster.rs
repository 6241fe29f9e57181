//! A whole Slurm of one node: its daemons are this process's children, listen on loopback only and keep everything in one
//! folder. Dropping it ends them and what they have started.

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything takes here; Slurm looks at limits every 30 seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// The most numbers of an array here: an ordinary comparison has more on other clusters.
pub const ARRAY: usize = 6;

/// Waits until something is so.
pub fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub struct Cluster {
    dir: PathBuf,
}

impl Cluster {
    /// Why there can't be one here.
    pub fn missing() -> Option<String> {
        let there = |program: &str| {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            let mut all = std::env::split_paths(&folders).chain(["/usr/sbin".into()]);
            all.any(|folder| folder.join(program).is_file())
        };
        let programs = ["munged", "slurmctld", "slurmd", "sbatch", "scontrol"];
        // SAFETY: it only asks.
        if unsafe { libc::geteuid() } != 0 {
            return Some("a Slurm of one's own must be started by root".into());
        }
        let missing: Vec<&str> = programs.into_iter().filter(|p| !there(p)).collect();
        (!missing.is_empty()).then(|| {
            format!(
                "{} not installed (apt-get install slurmctld slurmd slurm-client munge)",
                missing.join(", ")
            )
        })
    }

    /// Brings one up in a folder, in which jobs then run.
    pub fn up(dir: &Path) -> Self {
        // What loses its parent (a job's step does) becomes a child of this process, so that none outlives it.
        // SAFETY: it sets an attribute of this process.
        assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        let cluster = Self {
            dir: dir.to_owned(),
        };
        for folder in ["state", "spool", "log"] {
            fs::create_dir(cluster.file(folder)).unwrap();
        }
        let mut key = [0; 128];
        File::open("/dev/urandom")
            .unwrap()
            .read_exact(&mut key)
            .unwrap();
        fs::write(cluster.file("munge.key"), key).unwrap();
        fs::set_permissions(cluster.file("munge.key"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::write(cluster.file("slurm.conf"), cluster.configuration()).unwrap();

        let option = |name: &str, file: &str| format!("--{name}={}", cluster.file(file).display());
        let munge = [
            "--foreground".into(),
            "--num-threads=2".into(),
            option("socket", "munge.socket"),
            option("key-file", "munge.key"),
            option("pid-file", "munge.pid"),
            option("log-file", "log/munge"),
            option("seed-file", "munge.seed"),
        ];
        cluster.start("munged", &munge);
        wait_for("munged", || cluster.file("munge.socket").exists());
        cluster.start("slurmctld", &["-D".into(), "-c".into()]);
        cluster.start("slurmd", &["-D".into(), "-c".into()]);
        let began = Instant::now();
        while cluster.said("sinfo", &["-h", "-o", "%T"]).trim() != "idle" {
            assert!(began.elapsed() < PATIENCE, "no Slurm: {}", cluster.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
        cluster
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn configuration(&self) -> String {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let host = host.trim().split('.').next().unwrap().to_owned();
        // Both are free until Slurm takes them.
        let ports = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [controller, node] = ports.map(|p| p.local_addr().unwrap().port());
        let dir = self.dir.display();
        format!(
            "ClusterName=nasfw
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge.socket
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.pid
SlurmctldLogFile={dir}/log/slurmctld
SlurmdLogFile={dir}/log/slurmd
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MaxArraySize={ARRAY}
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PropagateResourceLimits=NONE
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 CoresPerSocket=16 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"
        )
    }

    // All children are reaped where the cluster ends.
    #[expect(clippy::zombie_processes)]
    fn start(&self, program: &str, arguments: &[String]) {
        let log = File::create(self.file("log").join(format!("{program}.said"))).unwrap();
        let mut command = self.command(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        // When this process is killed, so are they.
        // SAFETY: a system call that may be made between fork and exec.
        unsafe {
            command.pre_exec(
                || match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
            );
        }
        command.spawn().unwrap();
    }

    /// A program that finds this Slurm.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(&self.dir)
            .env("PATH", format!("{path}:/usr/sbin:/usr/bin:/bin"))
            .env("SLURM_CONF", self.file("slurm.conf"));
        command
    }

    /// What a command prints; nothing where it fails.
    fn said(&self, program: &str, arguments: &[&str]) -> String {
        let out = self.command(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn good(&self, program: &str, arguments: &[&str]) -> String {
        let out = self.command(program).args(arguments).output().unwrap();
        assert!(out.status.success(), "{program} {arguments:?}: {out:?}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Jobs that wait or work, a line each: number in its array, state, name.
    pub fn queue(&self) -> Vec<String> {
        let said = self.good("squeue", &["-h", "-r", "-o", "%K %T %j"]);
        said.lines().map(str::to_owned).collect()
    }

    /// Submits a script, and gives the job's number.
    pub fn submit(&self, script: &str, options: &[&str]) -> String {
        let arguments = [&["--parsable"], options, &[script]].concat();
        self.good("sbatch", &arguments).trim().to_owned()
    }

    pub fn scontrol(&self, arguments: &[&str]) {
        self.good("scontrol", arguments);
    }

    pub fn scancel(&self, job: &str) {
        self.good("scancel", &[job]);
    }

    /// All that Slurm knows of a job, on a line.
    pub fn show(&self, job: &str) -> String {
        self.good("scontrol", &["show", "job", "-o", job])
    }

    /// Waits until a job is in a state.
    pub fn wait_for(&self, job: &str, state: &str) {
        let began = Instant::now();
        while !self.show(job).contains(&format!("JobState={state} ")) {
            assert!(
                began.elapsed() < PATIENCE,
                "{job} is not {state}: {} {}",
                self.show(job),
                self.logs()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn logs(&self) -> String {
        let files = fs::read_dir(self.file("log")).unwrap().flatten();
        let texts = files.map(|f| fs::read_to_string(f.path()).unwrap_or_default());
        texts.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A job's processes, in their own sessions, become this process's children once their parents are gone.
        loop {
            for child in children() {
                // SAFETY: a child that has not been waited for.
                unsafe { libc::kill(child, libc::SIGKILL) };
            }
            // SAFETY: it waits for any child, of which nobody else in this program keeps one.
            if unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } < 0 {
                return;
            }
        }
    }
}

/// This process's children.
fn children() -> Vec<libc::pid_t> {
    let tasks = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let texts = tasks.map(|t| fs::read_to_string(t.path().join("children")).unwrap_or_default());
    let texts: Vec<String> = texts.collect();
    let numbers = texts.iter().flat_map(|t| t.split_whitespace());
    numbers.filter_map(|n| n.parse().ok()).collect()
}
