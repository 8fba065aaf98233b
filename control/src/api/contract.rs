//! The contract versions, and putting another one in force.

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use hiveops_proto::Timestamp;
use hiveops_proto::contract::ContractVersion;
use hiveops_proto::control::{DeprecationPolicy, Revision};
use hiveops_proto::http::ProblemKind;
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::public::{request, unexpected};
use super::{App, json};
use crate::replica::ask::{Ask, Decided, Told};
use crate::state::{Action, Change, Level, Push, Pushed, Reply, State as Plane};

/// What there is, as this replica knows it.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    current_version: ContractVersion,
    supported_versions: Vec<ContractVersion>,
    deprecation_policy: DeprecationPolicy,
    /// Of the contract document in force.
    contract_digest: Option<String>,
    /// Of the schema of frames.
    schema_digest: String,
    revision: Revision,
    /// Those that are kept, oldest first.
    versions: Vec<Version>,
    /// The document in force, as it was pushed.
    document: String,
}

/// One version that was in force, or is.
#[derive(Debug, Serialize)]
struct Version {
    version: ContractVersion,
    digest: String,
    at: Timestamp,
    level: Option<Level>,
    migration_note: Option<String>,
}

pub(crate) async fn show(State(app): State<App>) -> Result<Json<Shown>, Problem> {
    let none = || Problem::new(ProblemKind::NoQuorum, "the cluster has no first state yet");
    app.service.plane.read(shown).map(Json).ok_or_else(none)
}

fn shown(state: &Plane) -> Option<Shown> {
    let (view, kept) = (state.view()?, state.contract_versions()?);
    let current_version = view.contract.current.version;
    let versions = kept.iter().map(|(version, published)| Version {
        version: *version,
        digest: published.digest.clone(),
        at: published.at,
        level: published.level,
        migration_note: published.migration_note.clone(),
    });
    Some(Shown {
        current_version,
        supported_versions: view.contract.supported_versions,
        deprecation_policy: view.contract.deprecation_policy,
        contract_digest: view.contract.contract_digest,
        schema_digest: view.contract.schema_digest,
        revision: view.revision,
        versions: versions.collect(),
        document: kept.get(&current_version)?.document.clone(),
    })
}

/// A contract version on its way into force.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pushing {
    /// As text, so that its digest is that of the file.
    document: String,
    level: Option<Level>,
    migration_note: Option<String>,
    supported: Option<BTreeSet<ContractVersion>>,
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
}

/// What a push does.
#[derive(Debug, Serialize)]
pub(crate) struct PushReply {
    dry_run: bool,
    version: ContractVersion,
    previous: ContractVersion,
    digest: String,
    /// How far the two are apart, as a comparison sees it.
    level: Level,
    changes: Vec<Change>,
    changes_total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided: Option<Decided>,
}

impl PushReply {
    fn new(pushed: Pushed, decided: Option<Decided>) -> Self {
        let Pushed { version, previous, digest, level, changes, changes_total } = pushed;
        let dry_run = decided.is_none();
        Self { dry_run, version, previous, digest, level, changes, changes_total, decided }
    }
}

pub(crate) async fn push(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<PushReply>, Problem> {
    let request = request(&headers)?;
    let Pushing { document, level: label, migration_note, supported, dry_run } = json(body).await?;
    let push = Push { document, label, migration_note, supported };
    if dry_run {
        return match app.service.ask(Ask::PreviewContract { push }).await? {
            Told::Contract(pushed) => Ok(Json(PushReply::new(*pushed, None))),
            other => Err(unexpected(&other)),
        };
    }
    let decided = app.service.propose(request, Action::PushContract(Box::new(push))).await?;
    match &decided.reply {
        Reply::Contract(pushed) => Ok(Json(PushReply::new((**pushed).clone(), Some(decided)))),
        other => Err(Problem::new(ProblemKind::Internal, format!("a push was answered with {other:?}"))),
    }
}
