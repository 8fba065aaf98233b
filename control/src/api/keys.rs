//! The signing keys, as far as anybody may see them, and their rotation. A private key is in no answer.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use hiveops_proto::Timestamp;
use hiveops_proto::http::ProblemKind;
use hiveops_proto::id::KeyId;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::public::{request, unexpected};
use super::{App, json};
use crate::replica::ask::{Ask, Decided, Told};
use crate::state::{PublicKey, Reply, Rotation};

/// The keys, oldest first.
#[derive(Debug, Serialize)]
pub(crate) struct Keys {
    keys: Vec<PublicKey>,
}

pub(crate) async fn list(State(app): State<App>) -> Result<Json<Keys>, Problem> {
    match app.service.ask(Ask::Keys).await? {
        Told::Keys(keys) => Ok(Json(Keys { keys })),
        other => Err(unexpected(&other)),
    }
}

/// How to rotate.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotate {
    /// The old keys are in the wrong hands: everything that they signed is refused from now on.
    #[serde(default)]
    urgent: bool,
}

/// Which key takes over.
#[derive(Debug, Serialize)]
pub(crate) struct Rotated {
    kid: KeyId,
    sign_from: Timestamp,
    decided: Decided,
}

pub(crate) async fn rotate(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Rotated>, Problem> {
    let request = request(&headers)?;
    let Rotate { urgent } = json(body).await?;
    let rotation = if urgent { Rotation::Urgent } else { Rotation::Overlapping };
    let decided = app.service.rotate(request, rotation).await?;
    match &decided.reply {
        Reply::Rotation { kid, sign_from } => {
            Ok(Json(Rotated { kid: kid.clone(), sign_from: *sign_from, decided }))
        }
        other => Err(Problem::new(ProblemKind::Internal, format!("a rotation was answered with {other:?}"))),
    }
}
