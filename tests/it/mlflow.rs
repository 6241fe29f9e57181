//! A real MLflow server says what the event file says, also after a kill, and after it was away itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nasfw::framework::arch::Genotype;
use nasfw::framework::run::{EVENTS, read_events};
use serde_json::{Value, json};

use crate::program::{good, killed, nasfw, python, short_search, skipped};

/// Prints a run as JSON, by MLflow's own client.
const READER: &str = r#"
import json, os, sys, tempfile
from mlflow import MlflowClient
client, run = MlflowClient(sys.argv[1]), sys.argv[2]
found = client.get_run(run)
def artifact(name):
    return open(client.download_artifacts(run, name, tempfile.mkdtemp())).read()
print(json.dumps({
    "status": found.info.status,
    "name": found.info.run_name,
    "experiment": client.get_experiment(found.info.experiment_id).name,
    "params": found.data.params,
    "tags": found.data.tags,
    "metrics": {k: [[m.step, m.value] for m in client.get_metric_history(run, k)] for k in found.data.metrics},
    "artifacts": {f.path: artifact(f.path) for f in client.list_artifacts(run)},
}))
"#;

/// A server on this machine, with its tables and artifacts in a folder.
struct Server {
    child: Child,
    uri: String,
}

impl Server {
    /// Starts it, and waits until it answers.
    fn start(python: &Path, folder: &Path, port: u16) -> Self {
        let log = fs::File::create(folder.join("server.log")).unwrap();
        let child = Command::new(python)
            .args([
                "-m",
                "mlflow",
                "server",
                "--workers",
                "1",
                "--host",
                "127.0.0.1",
            ])
            .args(["--port", &port.to_string()])
            .arg("--backend-store-uri")
            .arg(format!("sqlite:///{}", folder.join("ml.db").display()))
            .arg("--artifacts-destination")
            .arg(folder.join("artifacts"))
            .current_dir(folder)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self {
            child,
            uri: format!("http://127.0.0.1:{port}"),
        };
        let began = Instant::now();
        while !server.answers() {
            let log = fs::read_to_string(folder.join("server.log")).unwrap();
            assert!(began.elapsed() < Duration::from_secs(120), "{log}");
            std::thread::sleep(Duration::from_millis(300));
        }
        server
    }

    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.uri.trim_start_matches("http://"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains(" 200 "))
    }

    /// What it says of the run that a run folder is.
    fn read(&self, python: &Path, run: &Path) -> Value {
        let out = Command::new(python)
            .args(["-c", READER, &self.uri, &id(run)])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{stderr}");
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its workers are children of its own; a term reaches them, a kill would not.
        let process = self.child.id().to_string();
        let _ = Command::new("kill").arg(process).status();
        let _ = self.child.wait();
    }
}

fn json_of(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn id(run: &Path) -> String {
    let kept = json_of(&run.join("mlflow.json"));
    kept["run_id"].as_str().unwrap().to_owned()
}

/// A port that nobody listens on.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The server has every number of the events, and nothing else but the result's; settings, architecture and files, too.
fn compare(found: &Value, run: &Path) {
    let result = json_of(&run.join("result.json"));
    // Letters that MLflow does not take in names.
    let name = |name: &str| name.replace('@', "_");
    let mut wanted = BTreeMap::<String, BTreeSet<(u64, u64)>>::new();
    for event in read_events(&run.join(EVENTS)).unwrap() {
        let (step, numbers) = event.scalars().unwrap_or_default();
        for (key, value) in numbers {
            wanted
                .entry(name(&key))
                .or_default()
                .insert((step, value.to_bits()));
        }
    }
    assert!(wanted.len() > 5, "{wanted:?}");
    let last = result["steps"].as_u64().unwrap();
    let mut end = |key: String, value: &Value| {
        let value = value.as_f64().unwrap().to_bits();
        wanted.insert(name(&key), [(last, value)].into());
    };
    end("result/entropy".into(), &result["entropy"]);
    end("result/sharpness".into(), &result["sharpness"]);
    for (kind, key) in [("", "metrics"), ("regret/", "regret")] {
        for (name, value) in result[key].as_object().into_iter().flatten() {
            end(format!("result/{kind}{name}"), value);
        }
    }
    let found_numbers: BTreeMap<String, BTreeSet<(u64, u64)>> = found["metrics"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(key, points)| {
            let points = points.as_array().unwrap().iter();
            let points = points.map(|p| (p[0].as_u64().unwrap(), p[1].as_f64().unwrap().to_bits()));
            (key.clone(), points.collect())
        })
        .collect();
    assert_eq!(found_numbers, wanted);

    let config = json_of(&run.join("run.json"));
    let params = &found["params"];
    assert_eq!(params["seed"], config["common"]["seed"].to_string());
    assert_eq!(params["strategy.name"], config["strategy"]["name"]);
    assert_eq!(params["space.name"], config["space"]["name"]);
    assert_eq!(
        params["trainer.epochs"],
        config["trainer"]["epochs"].to_string()
    );
    assert_eq!(
        params["strategy.arch.lr"],
        config["strategy"]["arch"]["lr"].to_string()
    );

    assert_eq!(found["status"], "FINISHED");
    assert_eq!(found["tags"]["nasfw.reason"], result["reason"]);
    let genotype: Genotype = serde_json::from_value(result["genotype"].clone()).unwrap();
    assert_eq!(found["tags"]["genotype"], genotype.to_string());
    for file in ["result.json", "config.toml", "cell.svg"] {
        assert_eq!(
            found["artifacts"][file],
            fs::read_to_string(run.join(file)).unwrap(),
            "{file}"
        );
    }
}

#[test]
fn the_real_server_has_what_the_events_say_also_after_a_kill_and_while_it_was_away() {
    let Some(python) = python("mlflow", "MLFLOW_PYTHON") else {
        return skipped(
            "the_real_server_has_what_the_events_say_also_after_a_kill_and_while_it_was_away",
            "no Python with mlflow in target/mlflow",
        );
    };
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str| dir.path().join("runs").join(name);
    let port = port();
    let server = Server::start(&python, dir.path(), port);
    let uri = format!("tracker.mlflow.uri={}", server.uri);
    let on = ["--track", "mlflow", "--track", "tensorboard", "--set", &uri];

    good(dir.path(), &short_search("whole", &on));
    let found = server.read(&python, &run("whole"));
    assert_eq!(
        (&found["name"], &found["experiment"]),
        (&json!("whole"), &json!("nasfw"))
    );
    compare(&found, &run("whole"));
    assert!(run("whole").join("tensorboard").is_dir(), "both trackers");

    // The numbers are those of a run that nobody tracks, and it can be told of afterwards.
    good(dir.path(), &short_search("plain", &[]));
    let result = |name: &str| fs::read_to_string(run(name).join("result.json")).unwrap();
    assert_eq!(result("plain"), result("whole"));
    good(
        dir.path(),
        &["track", "runs/plain", "--to", "mlflow", "--set", &uri],
    );
    compare(&server.read(&python, &run("plain")), &run("plain"));
    assert_ne!(id(&run("plain")), id(&run("whole")));

    // Killed by force; it goes on as the same run of the server.
    killed(
        dir.path(),
        &short_search("killed", &on),
        &run("killed").join(EVENTS),
        12,
    );
    let before = id(&run("killed"));
    good(dir.path(), &["resume", "runs/killed"]);
    assert_eq!(before, id(&run("killed")));
    compare(&server.read(&python, &run("killed")), &run("killed"));
    assert_eq!(result("killed"), result("whole"));

    // Without the server a run does not begin, but one that has begun goes on, and is told of when the server is back.
    killed(
        dir.path(),
        &short_search("alone", &on),
        &run("alone").join(EVENTS),
        6,
    );
    drop(server);
    let refused = nasfw(dir.path(), &short_search("refused", &on));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{text}");
    assert!(
        text.contains("can't be reached") && text.contains("mlflow server"),
        "{text}"
    );
    assert!(!run("refused").exists());
    let alone = nasfw(dir.path(), &["resume", "runs/alone"]);
    let text = String::from_utf8_lossy(&alone.stderr).into_owned();
    assert!(
        alone.status.success() && text.contains("nasfw track"),
        "{text}"
    );
    assert_eq!(result("alone"), result("whole"));
    let server = Server::start(&python, dir.path(), port);
    good(
        dir.path(),
        &["track", "runs/alone", "--to", "mlflow", "--set", &uri],
    );
    compare(&server.read(&python, &run("alone")), &run("alone"));
}
