//! Who may ask, and whether a message between replicas is for this one.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use hiveops_proto::http::ProblemKind;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::App;
use super::problem::Problem;
use crate::wire::{APPEND, CLUSTER_HEADER, FROM_HEADER, SNAPSHOT, TO_HEADER, VOTE};

/// Where a cluster secret is configured, everything but `/livez` needs it.
pub(crate) async fn secret(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(secret) = &app.service.config.secret else { return Ok(next.run(request).await) };
    let given = text(request.headers(), AUTHORIZATION.as_str());
    let given = given.and_then(|value| value.strip_prefix("Bearer "));
    match given {
        Some(given) if secret.matches(given) => Ok(next.run(request).await),
        Some(_) => Err(Problem::new(ProblemKind::Unauthorized, "this is not the secret of the cluster")),
        None => Err(Problem::new(
            ProblemKind::Unauthorized,
            "the secret of the cluster goes here as a bearer token",
        )),
    }
}

/// A message that went to a wrong address, or came from another cluster, does no harm.
pub(crate) async fn meant_for_this_replica(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let ours = app.service.link.cluster();
    check(app.service.config.id, ours.as_deref(), request.uri().path(), request.headers())
        .map_err(|detail| Problem::new(ProblemKind::Forbidden, detail))?;
    Ok(next.run(request).await)
}

fn check(own: u64, ours: Option<&str>, path: &str, headers: &HeaderMap) -> Result<(), String> {
    let number = |name| text(headers, name).and_then(|text| text.parse::<u64>().ok());
    match number(TO_HEADER) {
        Some(to) if to == own => {}
        Some(to) => return Err(format!("this is replica {own}, not replica {to}")),
        None => return Err(format!("messages between replicas have a header {TO_HEADER}")),
    }
    match number(FROM_HEADER) {
        Some(from) if from == own => return Err(format!("two replicas have id {own}")),
        Some(_) => {}
        None => return Err(format!("messages between replicas have a header {FROM_HEADER}")),
    }
    let agreement = [APPEND, VOTE, SNAPSHOT].contains(&path);
    match (text(headers, CLUSTER_HEADER), ours) {
        (Some(theirs), Some(ours)) if theirs != ours => {
            Err(format!("replica {own} is part of cluster {ours}, not of {theirs}"))
        }
        (_, None) if agreement => Err(format!("replica {own} is not part of a cluster yet")),
        (None, Some(_)) if agreement => Err("the message names no cluster".to_owned()),
        _ => Ok(()),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_message_for_somebody_else_is_refused_with_the_reason() {
        let headers = |from: &'static str, to: &'static str, cluster: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.insert(FROM_HEADER, HeaderValue::from_static(from));
            headers.insert(TO_HEADER, HeaderValue::from_static(to));
            if let Some(cluster) = cluster {
                headers.insert(CLUSTER_HEADER, HeaderValue::from_static(cluster));
            }
            headers
        };
        assert_eq!(check(1, Some("c"), VOTE, &headers("2", "1", Some("c"))), Ok(()));
        for (ours, from, to, cluster, problem) in [
            (Some("c"), "2", "3", Some("c"), "this is replica 1, not replica 3"),
            (Some("c"), "1", "1", Some("c"), "two replicas have id 1"),
            (Some("c"), "2", "1", Some("d"), "part of cluster c, not of d"),
            (Some("c"), "2", "1", None, "names no cluster"),
            (None, "2", "1", Some("c"), "not part of a cluster yet"),
        ] {
            let error = check(1, ours, APPEND, &headers(from, to, cluster)).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
