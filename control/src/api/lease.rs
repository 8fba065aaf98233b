//! How nodes borrow from the cluster-wide limits. The rules stand in `hiveops_proto::lease`; the lender is the
//! state machine.
//!
//! An ask has a number and no name of its own: one that arrives twice, because its answer was lost on the
//! way between replicas, is refused the second time, and the node asks anew with the next number. Nothing is
//! lent twice by that.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use hiveops_proto::NodeId;
use hiveops_proto::http::ProblemKind;
use hiveops_proto::lease::LeaseAnswer;
use http::StatusCode;
use serde::Deserialize;

use super::problem::Problem;
use super::{App, json};
use crate::state::{Action, Reply};

pub(crate) async fn renew(State(app): State<App>, body: Body) -> Result<Json<LeaseAnswer>, Problem> {
    let ask = json(body).await?;
    let decided = app.service.propose_unnamed(Action::RenewLease(Box::new(ask))).await?;
    match decided.reply {
        Reply::Lease(grant) => Ok(Json(LeaseAnswer { grant, revision: decided.revision })),
        other => Err(Problem::new(ProblemKind::Internal, format!("a renewal was answered with {other:?}"))),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Life {
    /// Which life of the node has ended.
    incarnation: u64,
}

/// Asking twice changes nothing.
pub(crate) async fn end(
    State(app): State<App>,
    Path(node): Path<String>,
    Query(Life { incarnation }): Query<Life>,
) -> Result<Response, Problem> {
    let node =
        NodeId::new(&node).map_err(|error| Problem::new(ProblemKind::InvalidData, error.to_string()))?;
    app.service.propose_unnamed(Action::EndLease { node, incarnation }).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
