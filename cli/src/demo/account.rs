//! As whom the simulated agents work where a node asks for access tokens: a user of their own, made over the control
//! plane's public API, with a password that this process made up and tells nobody.

use std::fs::File;
use std::io::{self, Read as _};
use std::time::Duration;

use hiveops_proto::access::Role;
use hiveops_proto::http::ProblemKind;
use hiveops_proto::path::{AUTH_LOGIN, AUTH_REFRESH, CONTROL_USER_PASSWORD, CONTROL_USERS};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::api::{Api, Error};
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
/// Before another look at a user that is somebody else's: an admin has to do something first.
const TAKEN_PAUSE: Duration = Duration::from_secs(60);
/// How often in a row the user gets this run's password once more because it is wrong. Somebody may have given it
/// another one; if it is wrong again and again, the user is disabled, and nothing is written for that.
const PREPARED_AGAIN_MAX: u32 = 3;

/// The user, its password, and what its login has just now. The control plane is one that this process has started:
/// in another one the name may be somebody's.
pub(crate) struct Account {
    control: ControlApi,
    password: String,
    refresh_token: Option<String>,
}

/// How far the user is.
enum Made {
    Ready,
    /// There is no other user yet.
    TooEarly,
    /// There is one of this name that has another role, so that it is none of an earlier run.
    Taken(Role),
}

impl Account {
    pub(crate) fn new(control: ControlApi) -> io::Result<Self> {
        let mut random = [0; PASSWORD_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let password = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { control, password, refresh_token: None })
    }

    /// Makes the user, or gives the one of an earlier run this run's password. Not before there is another one:
    /// nobody could look on, and the first admin of `HIVEOPS_BOOTSTRAP_ADMIN_EMAIL` is made only where there is no
    /// user.
    pub(super) async fn prepare(&self) {
        loop {
            match self.make().await {
                Ok(Made::Ready) => return,
                Ok(Made::TooEarly) => {}
                Ok(Made::Taken(role)) => {
                    let hint = "give it the role operator, and the simulated agents take it and its password";
                    tracing::error!(email = EMAIL, role = %role, hint, "user of the simulated agents is taken");
                    sleep(TAKEN_PAUSE).await;
                    continue;
                }
                Err(error) => tracing::warn!(error = %error, "simulated agents cannot have their user yet"),
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn make(&self) -> anyhow::Result<Made> {
        let users = users(&self.control).await?;
        if users.is_empty() {
            return Ok(Made::TooEarly);
        }
        let (path, body) = match users.iter().find(|user| user.email == EMAIL) {
            Some(user) if user.role != ROLE => return Ok(Made::Taken(user.role)),
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
        Ok(Made::Ready)
    }

    /// Renews the login at the node, or begins one; what is called from then on has the token.
    pub(super) async fn log_in(&mut self, api: &mut Api) {
        let mut prepared_again = 0;
        loop {
            let (path, body) = match &self.refresh_token {
                Some(token) => (AUTH_REFRESH, json!({"refresh_token": token})),
                None => (AUTH_LOGIN, json!({"email": EMAIL, "password": self.password})),
            };
            match api.call(api.request(Method::POST, path).json(&body)).await {
                Ok(grant) => match self.take(&grant) {
                    Some(access_token) => return api.set_token(access_token),
                    None => tracing::warn!("login of the simulated agents was answered without a token"),
                },
                // The login has ended: another one.
                Err(error) if self.refresh_token.is_some() && is_refused(&error) => {
                    tracing::debug!(error = %error, "login of the simulated agents has ended");
                    self.refresh_token = None;
                    continue;
                }
                Err(error) => {
                    // An admin may have disabled the user, and may enable it again.
                    tracing::warn!(error = %error, "simulated agents cannot log in");
                    if is_refused(&error) && prepared_again < PREPARED_AGAIN_MAX {
                        prepared_again += 1;
                        sleep(LOOK_EVERY).await;
                        self.prepare().await;
                        continue;
                    }
                }
            }
            sleep(LOGIN_PAUSE).await;
        }
    }

    /// Keeps the refresh token of an answer; its access token.
    fn take(&mut self, grant: &Value) -> Option<String> {
        let text = |name: &str| grant[name].as_str().map(str::to_owned);
        let access_token = text("access_token")?;
        self.refresh_token = text("refresh_token");
        Some(access_token)
    }
}

/// Whether it is the credential that was refused, and not the node that cannot decide.
fn is_refused(error: &Error) -> bool {
    let refusals =
        [ProblemKind::InvalidCredentials, ProblemKind::InvalidRefreshToken, ProblemKind::RefreshReused];
    matches!(error, Error::Problem(problem) if refusals.contains(&problem.code))
}
