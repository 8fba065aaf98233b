//! Logins, for nodes and for the commands of the binary. What is wrong with a body is not quoted here: it
//! has a password or a token in it. A denial says less than the log and the metrics do.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use hiveops_proto::CorrelationId;
use hiveops_proto::auth::{Grant, LoggedOut, LoginRequest, LogoutRequest, RefreshRequest};
use hiveops_proto::http::ProblemKind;
use http::HeaderValue;
use http::header::CACHE_CONTROL;

use super::problem::Problem;
use super::public::unexpected;
use super::{App, json_unquoted};
use crate::auth::{Denial, DenialReason, LogoutOutcome, RefreshOutcome};
use crate::replica::ask::{Ask, Refused, Told};
use crate::state::Secret;

pub(crate) async fn login(
    State(app): State<App>,
    Extension(correlation_id): Extension<CorrelationId>,
    body: Body,
) -> Result<Response, Problem> {
    let LoginRequest { email, password, address } =
        json_unquoted(body, r#"{"email", "password", "address"?}"#).await?;
    let ask = Ask::Login { email, password: Secret::new(password), address };
    let denial = match app.service.ask(ask).await {
        Ok(Told::LoggedIn(Ok(grant))) => {
            app.service.metrics.logins.inc();
            tracing::info!(correlation_id = %correlation_id, user = %grant.user.id, "logged in");
            return Ok(granted(*grant));
        }
        Ok(Told::LoggedIn(Err(denial))) => Ok(denial),
        Ok(other) => Err(unexpected(&other)),
        Err(refused) => Err(Problem::from(refused)),
    };
    let reason = denial.as_ref().map_or(DenialReason::Unavailable, |denial| denial.reason);
    app.service.metrics.login_denied(reason);
    tracing::warn!(correlation_id = %correlation_id, reason = %reason, "login denied");
    Err(denial.map_or_else(|problem| problem, denied))
}

fn denied(denial: Denial) -> Problem {
    let refused = |kind, detail: &str| Problem::from(Refused::new(kind, detail));
    match denial.reason {
        DenialReason::UnknownUser
        | DenialReason::WrongPassword
        | DenialReason::Disabled
        | DenialReason::PasswordTooLong
        | DenialReason::Changed => refused(ProblemKind::InvalidCredentials, "email or password is wrong"),
        DenialReason::AccountThrottled | DenialReason::AddressThrottled => {
            let wait = Duration::from_millis(denial.retry_after_ms.unwrap_or(0));
            let detail = "too many logins were tried; wait before you try again";
            refused(ProblemKind::LoginThrottled, detail).retry_after_seconds(whole_seconds(wait))
        }
        DenialReason::Busy => {
            let detail = "too many passwords are being checked; try again in a moment";
            refused(ProblemKind::Busy, detail)
        }
        DenialReason::Unavailable => refused(ProblemKind::NoQuorum, ""),
    }
}

/// Not less than it is, so that whoever waits for so long has waited long enough.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

pub(crate) async fn refresh(
    State(app): State<App>,
    Extension(correlation_id): Extension<CorrelationId>,
    body: Body,
) -> Result<Response, Problem> {
    let RefreshRequest { refresh_token } = json_unquoted(body, r#"{"refresh_token"}"#).await?;
    let answer = app.service.ask(Ask::Refresh { token: Secret::new(refresh_token) }).await;
    let (outcome, answer) = match answer {
        Ok(Told::Refreshed(outcome, Some(grant))) => (outcome, Ok(granted(*grant))),
        Ok(Told::Refreshed(outcome, None)) => (outcome, Err(not_refreshed(outcome))),
        Ok(other) => (RefreshOutcome::Unavailable, Err(unexpected(&other))),
        Err(refused) => (RefreshOutcome::Unavailable, Err(Problem::from(refused))),
    };
    app.service.metrics.refreshed(outcome);
    match outcome {
        RefreshOutcome::Rotated | RefreshOutcome::InGrace => {
            tracing::debug!(correlation_id = %correlation_id, outcome = %outcome, "refreshed");
        }
        RefreshOutcome::Reused | RefreshOutcome::Invalid | RefreshOutcome::Unavailable => {
            tracing::warn!(correlation_id = %correlation_id, reason = %outcome, "refresh denied");
        }
    }
    answer
}

fn not_refreshed(outcome: RefreshOutcome) -> Problem {
    match outcome {
        RefreshOutcome::Reused => {
            let detail = "the refresh token was used before, so the login has ended; log in again";
            Problem::new(ProblemKind::RefreshReused, detail)
        }
        RefreshOutcome::Rotated
        | RefreshOutcome::InGrace
        | RefreshOutcome::Invalid
        | RefreshOutcome::Unavailable => {
            Problem::new(ProblemKind::InvalidRefreshToken, "the login has ended, or never was; log in again")
        }
    }
}

pub(crate) async fn logout(
    State(app): State<App>,
    Extension(correlation_id): Extension<CorrelationId>,
    body: Body,
) -> Result<Json<LoggedOut>, Problem> {
    let shape = r#"{"refresh_token"} or {"family"}"#;
    let ask = match json_unquoted(body, shape).await? {
        LogoutRequest { refresh_token: None, family: Some(family) } => Ask::Logout { family },
        LogoutRequest { refresh_token: Some(token), family: None } => {
            Ask::LogoutBy { token: Secret::new(token) }
        }
        LogoutRequest { refresh_token: Some(_), family: Some(_) }
        | LogoutRequest { refresh_token: None, family: None } => {
            return Err(Problem::new(ProblemKind::InvalidData, format!("the body must be {shape}")));
        }
    };
    let (outcome, answer) = match app.service.ask(ask).await {
        Ok(Told::Done) => (LogoutOutcome::Ended, Ok(Json(LoggedOut { success: true }))),
        Ok(Told::NotLoggedOut(why)) => (why, Ok(Json(LoggedOut { success: true }))),
        Ok(other) => (LogoutOutcome::Unavailable, Err(unexpected(&other))),
        Err(refused) => (LogoutOutcome::Unavailable, Err(Problem::from(refused))),
    };
    app.service.metrics.logged_out(outcome);
    match outcome {
        LogoutOutcome::Ended => tracing::info!(correlation_id = %correlation_id, "logged out"),
        LogoutOutcome::NoLogin | LogoutOutcome::Invalid => {
            tracing::info!(correlation_id = %correlation_id, reason = %outcome, "logout ignored");
        }
        LogoutOutcome::Unavailable => {
            tracing::warn!(correlation_id = %correlation_id, reason = %outcome, "logout not possible");
        }
    }
    answer
}

fn granted(grant: Grant) -> Response {
    let mut response = Json(grant).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_rounded_up() {
        let rounded = [0, 1, 1_000, 1_001, 12_000].map(|ms| whole_seconds(Duration::from_millis(ms)));
        assert_eq!(rounded, [0, 1, 1, 2, 12]);
    }
}
