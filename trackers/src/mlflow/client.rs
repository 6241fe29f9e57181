//! Requests to an MLflow server.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use ureq::{Agent, RequestBuilder};

/// An MLflow server.
pub(super) struct Client {
    agent: Agent,
    uri: String,
    /// The header `Authorization`.
    authorization: Option<String>,
}

impl Client {
    /// The server at an address, whose requests may take so many seconds.
    pub fn new(uri: &str, timeout: u64) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(timeout)))
            .http_status_as_error(false)
            .build();
        let authorization = match variable("MLFLOW_TRACKING_USERNAME") {
            Some(user) => {
                let password = variable("MLFLOW_TRACKING_PASSWORD").unwrap_or_default();
                let both = STANDARD.encode(format!("{user}:{password}"));
                Some(format!("Basic {both}"))
            }
            None => variable("MLFLOW_TRACKING_TOKEN").map(|token| format!("Bearer {token}")),
        };
        Self {
            agent: config.into(),
            uri: uri.to_owned(),
            authorization,
        }
    }

    /// The number of the experiment of a name, which is made where it is missing.
    pub fn experiment(&self, name: &str) -> Result<String, String> {
        let query = [("experiment_name", name)];
        let id = match self.get("experiments/get-by-name", &query)? {
            Some(found) => found["experiment"]["experiment_id"].clone(),
            None => {
                self.post("experiments/create", &json!({ "name": name }))?["experiment_id"].clone()
            }
        };
        text(&id, "the experiment's number")
    }

    /// Makes a run; its number, and where its artifacts go.
    pub fn create(
        &self,
        experiment: &str,
        name: &str,
        tags: &[(&str, String)],
    ) -> Result<(String, String), String> {
        let tags: Vec<Value> = tags
            .iter()
            .map(|(key, value)| json!({ "key": key, "value": value }))
            .collect();
        let made = self.post(
            "runs/create",
            &json!({
                "experiment_id": experiment, "run_name": name, "start_time": now(), "tags": tags,
            }),
        )?;
        let info = &made["run"]["info"];
        Ok((
            text(&info["run_id"], "the run's number")?,
            info["artifact_uri"].as_str().unwrap_or_default().to_owned(),
        ))
    }

    /// Where the artifacts of a run go, and the last step that the server has numbers of; none where it has no such run.
    pub fn run(&self, id: &str) -> Result<Option<(String, Option<u64>)>, String> {
        let Some(found) = self.get("runs/get", &[("run_id", id)])? else {
            return Ok(None);
        };
        let run = &found["run"];
        if run["info"]["lifecycle_stage"] == "deleted" {
            return Ok(None);
        }
        let metrics = run["data"]["metrics"].as_array();
        let steps = metrics.into_iter().flatten().filter_map(|metric| {
            // 64-bit numbers are text in the interface; a step of 0 is left out.
            match &metric["step"] {
                Value::String(step) => step.parse().ok(),
                Value::Null => Some(0),
                step => step.as_u64(),
            }
        });
        let artifacts = run["info"]["artifact_uri"].as_str().unwrap_or_default();
        Ok(Some((artifacts.to_owned(), steps.max())))
    }

    /// Posts to a method of the interface.
    pub fn post(&self, method: &str, body: &Value) -> Result<Value, String> {
        let request = self.agent.post(self.method(method));
        let request = self.allowed(request).content_type("application/json");
        self.answer(request.send(body.to_string()))?
            .map_err(|refused| refused.of(&self.uri))
    }

    /// Gets from a method of the interface; none where what was asked for does not exist.
    fn get(&self, method: &str, query: &[(&str, &str)]) -> Result<Option<Value>, String> {
        let mut request = self.allowed(self.agent.get(self.method(method)));
        for (key, value) in query {
            request = request.query(key, value);
        }
        match self.answer(request.call())? {
            Ok(found) => Ok(Some(found)),
            Err(refused) if refused.code == "RESOURCE_DOES_NOT_EXIST" => Ok(None),
            Err(refused) => Err(refused.of(&self.uri)),
        }
    }

    /// Sends a file to where the artifacts of a run go, if that is the server itself.
    pub fn put(&self, artifacts: &str, name: &str, bytes: &[u8]) -> Result<(), String> {
        let Some(place) = artifacts.strip_prefix("mlflow-artifacts:") else {
            tracing::debug!(
                "artifacts go to {artifacts}, which only MLflow's own client can write to"
            );
            return Ok(());
        };
        // With or without the name of a host, and with any number of slashes.
        let place = match place.strip_prefix("//") {
            Some(rest) if !rest.starts_with('/') => rest.split_once('/').map_or("", |(_, p)| p),
            _ => place,
        };
        let place = place.trim_start_matches('/');
        let uri = format!(
            "{}/api/2.0/mlflow-artifacts/artifacts/{place}/{name}",
            self.uri
        );
        let request = self.allowed(self.agent.put(uri));
        self.answer(request.send(bytes))?
            .map(drop)
            .map_err(|refused| refused.of(&self.uri))
    }

    /// A request that says who asks, where that is known.
    fn allowed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.authorization {
            Some(value) => request.header("Authorization", value),
            None => request,
        }
    }

    fn method(&self, method: &str) -> String {
        format!("{}/api/2.0/mlflow/{method}", self.uri)
    }

    /// What the server answered, or how it refused.
    fn answer(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Result<Value, Refused>, String> {
        let away = |e: ureq::Error| format!("{} can't be reached: {e}", self.uri);
        let mut response = response.map_err(away)?;
        let status = response.status();
        let body = response.body_mut().read_to_string().map_err(away)?;
        let answer = serde_json::from_str::<Value>(&body).ok();
        if status.is_success() {
            let empty = body.trim().is_empty();
            return match answer {
                Some(answer) => Ok(Ok(answer)),
                None if empty => Ok(Ok(Value::Null)),
                None => Err(format!("{} does not answer as MLflow does", self.uri)),
            };
        }
        let said = |key: &str| {
            let answer = answer.as_ref()?;
            answer[key].as_str().map(str::to_owned)
        };
        Ok(Err(Refused {
            status: status.as_u16(),
            code: said("error_code").unwrap_or_default(),
            message: said("message").unwrap_or_default(),
        }))
    }
}

/// A request that the server refused.
struct Refused {
    status: u16,
    code: String,
    message: String,
}

impl Refused {
    fn of(&self, uri: &str) -> String {
        let said = match (self.status, self.message.as_str()) {
            (401 | 403, _) => {
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            }
            (_, "") => "is this the address of an MLflow server?",
            (_, message) => message,
        };
        format!("{uri} answers with {}: {said}", self.status)
    }
}

fn text(value: &Value, what: &str) -> Result<String, String> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| format!("the server does not say {what}"))
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_millis().try_into().unwrap_or(u64::MAX))
}

/// The value of an environment variable that is not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
