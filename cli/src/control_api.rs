//! Calls to the control plane: any replica will do, and the next one is asked when one does not answer.

use std::time::Duration;

use hiveops_proto::control::ControlStatus;
use hiveops_proto::http::Problem;
use hiveops_proto::path::{CONTROL_STATUS, IDEMPOTENCY_HEADER};
use reqwest::header::DATE;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::api::readable;
use crate::output::Usage;

/// Longer than a change of the members may take, so that the replica's answer is the one people see.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Which cluster, and with which secret.
#[derive(clap::Args)]
pub(crate) struct ControlTarget {
    /// Addresses of control replicas, with commas between them; any one will do
    #[arg(long, env = "HIVEOPS_CONTROL", value_name = "URL,…", default_value = "http://127.0.0.1:7100")]
    pub(crate) control: String,
    #[command(flatten)]
    pub(crate) secret: SecretArgs,
}

/// The secret of a cluster.
#[derive(clap::Args)]
pub(crate) struct SecretArgs {
    /// Secret of the cluster, where it has one
    #[arg(long, env = "HIVEOPS_CLUSTER_SECRET", value_name = "SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// File that holds the secret of the cluster
    #[arg(long, env = "HIVEOPS_CLUSTER_SECRET_FILE", value_name = "FILE", conflicts_with = "secret")]
    secret_file: Option<String>,
}

/// The replicas.
pub(crate) struct ControlApi {
    http: reqwest::Client,
    urls: Vec<String>,
    secret: Option<String>,
}

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot reach a control replica at {urls}; is one running? start one with `hiveops control`")]
    Unreachable {
        urls: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("{}", readable(.0))]
    Problem(Box<Problem>),
    #[error("{url} answered {status}, which no control replica does")]
    Unexpected { url: String, status: StatusCode },
}

impl ControlApi {
    pub(crate) fn new(target: ControlTarget) -> anyhow::Result<Self> {
        let urls: Vec<String> =
            target.control.split(',').map(|url| url.trim().trim_end_matches('/').to_owned()).collect();
        for url in &urls {
            let scheme = reqwest::Url::parse(url).ok().map(|url| url.scheme().to_owned());
            if scheme.as_deref() != Some("http") {
                let text = format!(
                    "`{url}` is not the address of a replica (--control); write it like http://127.0.0.1:7100"
                );
                return Err(Usage(text).into());
            }
        }
        let secret = match target.secret {
            SecretArgs { secret: None, secret_file: Some(path) } => {
                let text = std::fs::read_to_string(&path);
                let text =
                    text.map_err(|error| Usage(format!("`{path}` (--secret-file) cannot be read: {error}")))?;
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            SecretArgs { secret, .. } => secret,
        };
        Ok(Self { http: client()?, urls, secret })
    }

    /// One replica.
    pub(crate) fn at(url: &str, secret: Option<String>) -> reqwest::Result<Self> {
        Self::of(vec![url.to_owned()], secret)
    }

    /// These replicas.
    pub(crate) fn of(urls: Vec<String>, secret: Option<String>) -> reqwest::Result<Self> {
        Ok(Self { http: client()?, urls, secret })
    }

    pub(crate) async fn status(&self) -> anyhow::Result<ControlStatus> {
        Ok(serde_json::from_value(self.call(Method::GET, CONTROL_STATUS, None).await?)?)
    }

    /// What time the first replica shows on its answer, as HTTP writes it. Any answer has it, a refusal too.
    pub(crate) async fn date(&self) -> Option<String> {
        let url = self.urls.first()?;
        let request = self.http.get(format!("{url}{CONTROL_STATUS}?local=true"));
        let request = self.secret.iter().fold(request, |request, secret| request.bearer_auth(secret));
        let response = request.send().await.ok()?;
        response.headers().get(DATE)?.to_str().ok().map(str::to_owned)
    }

    /// Makes a call at the first replica that answers; `null` when it succeeds without a word. The call has
    /// one name wherever it is made, so that nothing is done twice.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Error> {
        let name = format!("cli-{}-{}", std::process::id(), unique());
        let mut last = None;
        for url in &self.urls {
            let mut request = self.http.request(method.clone(), format!("{url}{path}"));
            if let Some(body) = &body {
                request = request.json(body).header(IDEMPOTENCY_HEADER, &name);
            }
            if let Some(secret) = &self.secret {
                request = request.bearer_auth(secret);
            }
            match request.send().await {
                Ok(response) => return answer(url, response).await,
                Err(error) => last = Some(error.without_url()),
            }
        }
        let source = last.expect("a list that was split has a part");
        Err(Error::Unreachable { urls: self.urls.join(", "), source })
    }
}

fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        // A replica is reached directly; a proxy of the environment is for other traffic.
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .build()
}

async fn answer(url: &str, response: reqwest::Response) -> Result<Value, Error> {
    let (status, url) = (response.status(), url.to_owned());
    let Ok(body) = response.text().await else { return Err(Error::Unexpected { url, status }) };
    if status.is_success() && body.is_empty() {
        return Ok(Value::Null);
    }
    if status.is_success() {
        return serde_json::from_str(&body).map_err(|_| Error::Unexpected { url, status });
    }
    match serde_json::from_str::<Problem>(&body) {
        Ok(problem) => Err(Error::Problem(Box::new(problem))),
        Err(_) => Err(Error::Unexpected { url, status }),
    }
}

/// Tells two runs of a command apart, even with the same process id.
pub(crate) fn unique() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}
