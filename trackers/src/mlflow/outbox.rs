//! What an MLflow server must still be told, and the thread that tells it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Client, now};

/// The most metrics of a request, by the interface.
const METRICS: usize = 1000;
/// The most parameters of a request, and the most tags.
const PARAMS: usize = 100;
/// The most metrics that wait for a server that is away.
const WAITING: usize = 200_000;
/// Events wait so long for others, so that not every one is a request.
const GATHER: Duration = Duration::from_millis(500);
/// How long the end of a run waits for the server.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest pause between two tries.
const PAUSE: Duration = Duration::from_secs(60);

/// What the server must still be told of a run, in order.
pub(super) struct Outbox {
    run: String,
    artifacts: String,
    /// The last step that an earlier process told of: a run that goes on does the same again up to there. Of that step
    /// itself it may have told only a part.
    sent: Option<u64>,
    metrics: VecDeque<Value>,
    /// Metrics that had no place to wait at.
    lost: usize,
    params: VecDeque<Value>,
    tags: BTreeMap<String, String>,
    files: VecDeque<(&'static str, Vec<u8>)>,
    status: Option<&'static str>,
    ended: bool,
}

impl Outbox {
    /// Nothing to tell yet of a run, of which the server knows everything before step `sent`.
    pub fn new(run: String, artifacts: String, sent: Option<u64>) -> Self {
        Self {
            run,
            artifacts,
            sent,
            metrics: VecDeque::new(),
            lost: 0,
            params: VecDeque::new(),
            tags: BTreeMap::new(),
            files: VecDeque::new(),
            status: None,
            ended: false,
        }
    }

    /// A number of a step.
    pub fn metric(&mut self, name: &str, value: f64, step: u64, time: u64) {
        match self.sent {
            Some(sent) if step < sent => return,
            // Steps that come again after a rollback are told again.
            Some(_) => self.sent = None,
            None => {}
        }
        if self.metrics.len() == WAITING {
            self.metrics.pop_front();
            self.lost += 1;
        }
        // JSON has no such numbers; the interface takes their names.
        let value = match value {
            v if v.is_nan() => json!("NaN"),
            v if v == f64::INFINITY => json!("Infinity"),
            v if v == f64::NEG_INFINITY => json!("-Infinity"),
            v => json!(v),
        };
        self.metrics.push_back(
            json!({ "key": key(name), "value": value, "timestamp": time, "step": step }),
        );
    }

    /// A setting.
    pub fn param(&mut self, name: &str, value: &str) {
        self.params
            .push_back(json!({ "key": key(name), "value": value }));
    }

    /// A tag; the last value counts.
    pub fn tag(&mut self, name: &str, value: &str) {
        self.tags.insert(name.into(), value.into());
    }

    /// A file of the run.
    pub fn file(&mut self, name: &'static str, bytes: Vec<u8>) {
        self.files.push_back((name, bytes));
    }

    /// What the run is at.
    pub fn status(&mut self, status: &'static str) {
        self.status = Some(status);
    }

    /// The run has ended so.
    pub fn end(&mut self, status: &'static str) {
        self.ended = true;
        self.status(status);
    }

    fn is_empty(&self) -> bool {
        self.metrics.is_empty()
            && self.params.is_empty()
            && self.tags.is_empty()
            && self.files.is_empty()
            && self.status.is_none()
    }

    /// Sends everything.
    ///
    /// # Errors
    /// A server that is away or refuses; what was not sent stays here.
    pub fn send(&mut self, client: &Client) -> Result<(), String> {
        while !(self.metrics.is_empty() && self.params.is_empty() && self.tags.is_empty()) {
            let metrics = self.metrics.len().min(METRICS);
            let params = self.params.len().min(PARAMS);
            let tags: Vec<&String> = self.tags.keys().take(PARAMS).collect();
            let body = json!({
                "run_id": self.run,
                "metrics": self.metrics.iter().take(metrics).collect::<Vec<_>>(),
                "params": self.params.iter().take(params).collect::<Vec<_>>(),
                "tags": tags
                    .iter()
                    .map(|key| json!({ "key": key, "value": self.tags[*key] }))
                    .collect::<Vec<_>>(),
            });
            client.post("runs/log-batch", &body)?;
            let tags: Vec<String> = tags.into_iter().cloned().collect();
            self.metrics.drain(..metrics);
            self.params.drain(..params);
            self.tags.retain(|key, _| !tags.contains(key));
        }
        while let Some((name, bytes)) = self.files.front() {
            client.put(&self.artifacts, name, bytes)?;
            self.files.pop_front();
        }
        if let Some(status) = self.status {
            let mut body = json!({ "run_id": self.run, "status": status });
            if self.ended {
                body["end_time"] = now().into();
            }
            client.post("runs/update", &body)?;
            self.status = None;
        }
        Ok(())
    }
}

/// A name as the interface takes it: letters, digits and `_-. /`, no empty part of a path, at most 250 bytes.
fn key(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-. /".contains(c);
    let name: String = name
        .chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .collect();
    let parts = name.split('/').map(|part| match part {
        "" | "." | ".." => "_",
        part => part,
    });
    let mut name = parts.collect::<Vec<_>>().join("/");
    name.truncate(250);
    name
}

/// A change of the outbox.
type Change = Box<dyn FnOnce(&mut Outbox) + Send>;

/// The thread that sends what is put into the outbox.
pub(super) struct Sender {
    changes: mpsc::Sender<Change>,
    thread: JoinHandle<Result<(), String>>,
}

impl Sender {
    /// Begins to send.
    pub fn start(client: Client, outbox: Outbox) -> Self {
        let (changes, from) = mpsc::channel::<Change>();
        Self {
            changes,
            thread: thread::spawn(move || deliver(&client, outbox, &from)),
        }
    }

    /// Changes the outbox, soon.
    pub fn put(&self, change: impl FnOnce(&mut Outbox) + Send + 'static) {
        // The thread only ends after this end of the channel is dropped, or by a panic that `finish` tells of.
        let _ = self.changes.send(Box::new(change));
    }

    /// Waits until everything is sent, for a while.
    ///
    /// # Errors
    /// What was not sent, and why.
    pub fn finish(self) -> Result<(), String> {
        drop(self.changes);
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err("its thread panicked".into()))
    }
}

/// Sends until nobody can change the outbox any more.
fn deliver(
    client: &Client,
    mut outbox: Outbox,
    changes: &mpsc::Receiver<Change>,
) -> Result<(), String> {
    let (mut pause, mut next) = (Duration::ZERO, Instant::now());
    let mut until = None;
    loop {
        match until {
            None => match changes.recv_timeout(GATHER) {
                Ok(change) => {
                    change(&mut outbox);
                    changes.try_iter().for_each(|change| change(&mut outbox));
                    // Others may come with this one.
                    thread::sleep(GATHER / 10);
                    changes.try_iter().for_each(|change| change(&mut outbox));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    until = Some(Instant::now() + PATIENCE);
                    (pause, next) = (Duration::ZERO, Instant::now());
                }
            },
            Some(_) => thread::sleep(next.saturating_duration_since(Instant::now())),
        }
        let mut failed = None;
        if !outbox.is_empty() && Instant::now() >= next {
            match outbox.send(client) {
                Ok(()) => pause = Duration::ZERO,
                Err(why) => {
                    if pause.is_zero() && until.is_none() {
                        tracing::warn!("MLflow is told of this run later: {why}");
                    }
                    pause = (pause * 2).clamp(Duration::from_secs(1), PAUSE);
                    next = Instant::now() + pause;
                    failed = Some(why);
                }
            }
        }
        let Some(until) = until else { continue };
        return match failed {
            Some(_) if next < until => continue,
            Some(why) => Err(why),
            None if outbox.lost > 0 => Err(format!(
                "it was away for long, and {} numbers were dropped",
                outbox.lost
            )),
            None => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn outbox(sent: Option<u64>) -> Outbox {
        Outbox::new("id".into(), String::new(), sent)
    }

    #[test]
    fn what_an_earlier_process_told_is_not_told_again_but_rollbacks_are() {
        let mut outbox = outbox(Some(7));
        for step in [6, 7, 8, 5, 6] {
            outbox.metric("loss", 1.0, step, 0);
        }
        let steps: Vec<u64> = outbox
            .metrics
            .iter()
            .map(|m| m["step"].as_u64().unwrap())
            .collect();
        assert_eq!(steps, [7, 8, 5, 6]);
    }

    #[test]
    fn numbers_that_json_lacks_have_names() {
        let mut outbox = outbox(None);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.5] {
            outbox.metric("x", value, 0, 0);
        }
        let values: Vec<&Value> = outbox.metrics.iter().map(|m| &m["value"]).collect();
        assert_eq!(
            values,
            ["NaN", "Infinity", "-Infinity"]
                .map(Value::from)
                .iter()
                .chain([&json!(0.5)])
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_server_that_is_away_holds_up_nobody_and_is_told_of() {
        // Nobody listens on this port of this machine.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let client = Client::new(&format!("http://127.0.0.1:{port}"), 1);
        let mut outbox = outbox(None);
        outbox.metric("loss", 1.0, 1, 0);
        let why = outbox.send(&client).unwrap_err();
        assert!(why.contains("can't be reached"), "{why}");
        assert_eq!(outbox.metrics.len(), 1);
    }

    proptest! {
        #[test]
        fn names_are_what_the_interface_takes(name in ".{0,300}") {
            let key = key(&name);
            let allowed = |c: char| c.is_ascii_alphanumeric() || "_-. /".contains(c);
            prop_assert!(key.chars().all(allowed) && key.len() <= 250, "{}", key);
            prop_assert!(key.split('/').all(|part| !["", ".", ".."].contains(&part)) || key.len() == 250, "{}", key);
        }

        #[test]
        fn plain_names_stay(name in "[a-z][a-z0-9_.-]{0,20}(/[a-z][a-z0-9_]{0,20}){0,3}") {
            prop_assert_eq!(key(&name), name);
        }
    }
}
