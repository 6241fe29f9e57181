//! The tracker `mlflow`: a run on an MLflow server, through its REST interface (MLflow's documentation, "REST API",
//! version 2.0 of the interface).
//!
//! The server is asked once before the first step, so that a wrong address is known at once. From then on a thread of its
//! own sends what happens, and a server that is away holds up nothing: what could not be sent waits, and what still waits at
//! the end can be sent with `nasfw track`.

mod client;
mod outbox;

use std::fs;
use std::path::Path;

use nasfw_framework::command::command;
use nasfw_framework::listen::shared;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::run::{CONFIG, RESULT, name_of, read_json_if_there, to_json, write_whole};
use nasfw_framework::settings::{flatten, in_words};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use client::{Client, now, variable};
use outbox::{Outbox, Sender};

/// Which run of a server a run folder is.
const KEPT: &str = "mlflow.json";
/// Longest value of a parameter: old servers take no longer ones.
const LONGEST_PARAM: usize = 500;
/// Longest value of a tag.
const LONGEST_TAG: usize = 5000;

/// The tracker `mlflow`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mlflow {
    /// Address of the server; empty for that of MLFLOW_TRACKING_URI, or of this machine.
    pub uri: String,
    /// Name of the experiment; empty for that of MLFLOW_EXPERIMENT_NAME, or `nasfw`.
    pub experiment: String,
    /// Whether configuration, result and drawing are sent as artifacts at the end.
    pub artifacts: bool,
    /// Seconds that a request may take.
    pub timeout: u64,
}

register! {
    tracker "mlflow" => Mlflow,
    summary: "a run on an MLflow server: settings, metrics by step, result and drawing",
    source: "MLflow's REST interface, version 2.0",
    defaults: "[tracker]
# Address of the server; empty takes MLFLOW_TRACKING_URI, and without that http://127.0.0.1:5000. A user's name and password,
# or a token, are taken from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.
uri = \"\"
# Name of the experiment, which is made where it is missing; empty takes MLFLOW_EXPERIMENT_NAME, and without that nasfw.
experiment = \"\"
# At the end, send config.toml, result.json and cell.svg as artifacts.
artifacts = true
# Seconds that a request may take.
timeout = 10
",
    example: "nasfw run --strategy darts --space toy-conv --track mlflow --set tracker.mlflow.uri=http://127.0.0.1:5000",
}

#[typetag::serde(name = "mlflow")]
impl Tracker for Mlflow {
    fn track(&self, run: Tracked<'_>) -> Result<SharedListener> {
        let sender = match self.begin(run) {
            Ok(sender) => Some(sender),
            // A search that is under way is worth more than its record elsewhere, and `nasfw track` makes good for it.
            Err(why) if run.goes_on => {
                tracing::warn!(
                    "MLflow does not learn of this run for now: {why}; when it is over, `{}` sends it",
                    track(run.run)
                );
                None
            }
            Err(why) => {
                return Err(Error::Incompatible {
                    what: "the tracker `mlflow`".into(),
                    why,
                    help: "start the server (`mlflow server`), name another one with \
                           `--set tracker.mlflow.uri=http://HOST:PORT`, or leave `--track mlflow` out"
                        .into(),
                });
            }
        };
        Ok(shared(Run {
            folder: run.run.to_owned(),
            artifacts: self.artifacts,
            sender,
            over: false,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        let key = "tracker.mlflow.uri";
        if !self.uri.is_empty() && !is_address(&self.uri) {
            v.problem(key, "it must begin with http:// or https://");
        }
        if self.uri.contains('@') {
            let what = "names and passwords stay out of run folders: set MLFLOW_TRACKING_USERNAME and \
                        MLFLOW_TRACKING_PASSWORD instead";
            v.problem(key, what);
        }
        v.range("tracker.mlflow.timeout", self.timeout, 1, 3600);
    }
}

fn is_address(uri: &str) -> bool {
    uri.starts_with("http://") || uri.starts_with("https://")
}

/// What to type to send a run.
fn track(run: &Path) -> String {
    let words = ["track".as_ref(), run.as_os_str()];
    command(
        words
            .into_iter()
            .chain(["--to".as_ref(), "mlflow".as_ref()]),
    )
}

/// Which run of which server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    uri: String,
    run_id: String,
}

impl Mlflow {
    /// Finds or makes the run on the server, and sends its settings.
    fn begin(&self, run: Tracked<'_>) -> Result<Sender, String> {
        let or = |own: &str, name: &str, usual: &str| match own {
            "" => variable(name).unwrap_or_else(|| usual.into()),
            own => own.to_owned(),
        };
        let uri = or(&self.uri, "MLFLOW_TRACKING_URI", "http://127.0.0.1:5000");
        let uri = uri.trim_end_matches('/').to_owned();
        if !is_address(&uri) {
            return Err(format!(
                "MLFLOW_TRACKING_URI is `{uri}`, and only http:// and https:// are talked to"
            ));
        }
        let client = Client::new(&uri, self.timeout);
        let help = "delete it, and the run begins anew on the server";
        let kept = read_json_if_there::<Kept>(&run.run.join(KEPT), help);
        let kept = kept.map_err(|e| e.to_string())?;
        if let Some(kept) = kept.filter(|kept| kept.uri == uri)
            && let Some((artifacts, sent)) = client.run(&kept.run_id)?
        {
            let mut outbox = Outbox::new(kept.run_id, artifacts, sent);
            outbox.status("RUNNING");
            return Ok(Sender::start(client, outbox));
        }
        let experiment = or(&self.experiment, "MLFLOW_EXPERIMENT_NAME", "nasfw");
        let experiment = client.experiment(&experiment)?;
        let (run_id, artifacts) = client.create(&experiment, &name_of(run.run), &tags(run.run))?;
        let kept = Kept {
            uri,
            run_id: run_id.clone(),
        };
        let text = to_json(KEPT, &kept).map_err(|e| e.to_string())?;
        write_whole(&run.run.join(KEPT), &text).map_err(|e| e.to_string())?;
        let mut outbox = Outbox::new(run_id, artifacts, None);
        for (key, value) in params(run.config) {
            outbox.param(&key, &value);
        }
        // Whatever the server does not like about the settings is said now.
        outbox.send(&client)?;
        Ok(Sender::start(client, outbox))
    }
}

/// What is known of a run from the start and is no setting.
fn tags(run: &Path) -> Vec<(&'static str, String)> {
    let whole = run.canonicalize().unwrap_or_else(|_| run.to_owned());
    let user = variable("USER").or_else(|| variable("LOGNAME"));
    [
        Some(("mlflow.source.name", "nasfw".to_owned())),
        Some(("mlflow.source.type", "LOCAL".to_owned())),
        user.map(|user| ("mlflow.user", user)),
        Some(("nasfw.version", env!("CARGO_PKG_VERSION").to_owned())),
        Some(("nasfw.folder", whole.to_string_lossy().into_owned())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Settings by dotted key, as text. A tracker's own say nothing of a run.
fn params(config: &Value) -> Vec<(String, String)> {
    let mut config = config.clone();
    if let Some(table) = config.as_object_mut() {
        table.remove("trackers");
    }
    flatten(&config)
        .into_iter()
        .map(|(key, value)| {
            let text = match value {
                Value::Null => "none".into(),
                value => in_words(&value),
            };
            // What belongs to no plugin has no section in a configuration.
            let key = key.strip_prefix("common.").unwrap_or(&key).to_owned();
            (key, cut(&text, LONGEST_PARAM))
        })
        .collect()
}

/// At most so many bytes of a text.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mark = "…";
    let end = text.floor_char_boundary(most - mark.len());
    format!("{}{mark}", &text[..end])
}

/// Tells the server of one run.
struct Run {
    folder: std::path::PathBuf,
    artifacts: bool,
    /// None where the server could not be reached when the run went on.
    sender: Option<Sender>,
    /// Whether the server was told how the run ended.
    over: bool,
}

impl Run {
    /// The run has ended so. Waits until the server knows, for a while.
    fn end(&mut self, status: &'static str) {
        self.over = true;
        let Some(sender) = self.sender.take() else {
            return;
        };
        sender.put(move |outbox| outbox.end(status));
        if let Err(why) = sender.finish() {
            tracing::warn!(
                "MLflow does not have all of this run: {why}; `{}` sends the rest",
                track(&self.folder)
            );
        }
    }
}

impl Listener for Run {
    fn event(&mut self, event: &Event) -> Result<()> {
        let Some(sender) = &self.sender else {
            return Ok(());
        };
        if let Some((step, numbers)) = event.scalars() {
            let time = now();
            sender.put(move |outbox| {
                for (name, value) in numbers {
                    outbox.metric(&name, value, step, time);
                }
            });
        }
        match event {
            Event::Architecture { genotype, .. } => {
                let text = cut(&genotype.to_string(), LONGEST_TAG);
                sender.put(move |outbox| outbox.tag("genotype", &text));
            }
            Event::Interrupted { .. } => self.end("KILLED"),
            _ => {}
        }
        Ok(())
    }

    fn found(&mut self, outcome: &Outcome) -> Result<()> {
        let Some(sender) = &self.sender else {
            return Ok(());
        };
        let mut numbers = vec![];
        numbers.extend(outcome.entropy.map(|v| ("result/entropy".to_owned(), v)));
        numbers.extend(
            outcome
                .sharpness
                .map(|v| ("result/sharpness".to_owned(), v)),
        );
        for (name, value) in outcome.metrics.iter().flatten() {
            numbers.push((format!("result/{name}"), *value));
        }
        for (name, value) in outcome.regret.iter().flatten() {
            numbers.push((format!("result/regret/{name}"), *value));
        }
        let mut files = vec![];
        for name in [CONFIG, RESULT, "cell.svg"] {
            if self.artifacts
                && let Ok(bytes) = fs::read(self.folder.join(name))
            {
                files.push((name, bytes));
            }
        }
        let (step, reason) = (outcome.steps, outcome.reason.clone());
        let genotype = cut(&outcome.genotype.to_string(), LONGEST_TAG);
        sender.put(move |outbox| {
            let time = now();
            for (name, value) in numbers {
                outbox.metric(&name, value, step, time);
            }
            outbox.tag("genotype", &genotype);
            outbox.tag("nasfw.reason", &reason);
            for (name, bytes) in files {
                outbox.file(name, bytes);
            }
        });
        self.end("FINISHED");
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.over {
            self.end("FAILED");
        }
    }
}
