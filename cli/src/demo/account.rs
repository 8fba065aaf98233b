//! As whom the simulated agents work where a node asks for access tokens: a user of their own, made over the control
//! plane's public API, with a password that this process made up and tells nobody.

use std::fs::File;
use std::io::{self, Read as _};
use std::time::Duration;

use hiveops_proto::access::Role;
use hiveops_proto::path::{AUTH_LOGIN, CONTROL_USER_PASSWORD, CONTROL_USERS};
use reqwest::Method;
use serde_json::json;
use tokio::time::sleep;

use crate::api::Api;
use crate::command::users::users;
use crate::control_api::ControlApi;

/// A domain that is nobody's (RFC 2606).
pub(crate) const EMAIL: &str = "simulated-agents@hiveops.invalid";
const NAME: &str = "Simulated agents";
/// They change agents and tasks, and need nothing else.
const ROLE: Role = Role::Operator;
/// Random bytes of the password: nobody guesses it.
const PASSWORD_BYTES: usize = 32;
/// Between two looks whether there is a user, or a control plane that answers.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a login that failed. Logins of one account are throttled to one in 12 s.
const LOGIN_PAUSE: Duration = Duration::from_secs(15);

/// The user and its password.
pub(crate) struct Account {
    control: ControlApi,
    password: String,
}

impl Account {
    pub(crate) fn new(control: ControlApi) -> io::Result<Self> {
        let mut random = [0; PASSWORD_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let password = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { control, password })
    }

    /// Makes the user, or gives the one of an earlier run this run's password. Not before there is another one:
    /// nobody could look on, and the first admin of `HIVEOPS_BOOTSTRAP_ADMIN_EMAIL` is made only where there is no
    /// user.
    pub(super) async fn prepare(&self) {
        loop {
            match self.make().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = %error, "simulated agents cannot have their user yet"),
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn make(&self) -> anyhow::Result<bool> {
        let users = users(&self.control).await?;
        if users.is_empty() {
            return Ok(false);
        }
        let (path, body) = match users.iter().find(|user| user.email == EMAIL) {
            Some(user) => {
                let path = CONTROL_USER_PASSWORD.replace("{id}", user.id.as_str());
                (path, json!({"password": self.password}))
            }
            None => {
                let body =
                    json!({"email": EMAIL, "full_name": NAME, "role": ROLE, "password": self.password});
                (CONTROL_USERS.to_owned(), body)
            }
        };
        self.control.call(Method::POST, &path, Some(body)).await?;
        Ok(true)
    }

    /// Logs in at the node; what is called from then on has the token.
    pub(super) async fn log_in(&self, api: &mut Api) {
        loop {
            let login = json!({"email": EMAIL, "password": self.password});
            let answer = api.call(api.request(Method::POST, AUTH_LOGIN).json(&login)).await;
            match answer.map(|grant| grant["access_token"].as_str().map(str::to_owned)) {
                Ok(Some(token)) => return api.set_token(token),
                Ok(None) => tracing::warn!("login of the simulated agents was answered without a token"),
                // An admin may have disabled the user, and may enable it again.
                Err(error) => tracing::warn!(error = %error, "simulated agents cannot log in"),
            }
            sleep(LOGIN_PAUSE).await;
        }
    }
}
