//! The published documents, as this build carries them.

use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderValue};

/// How long a client may keep a document: they change with the binary only.
const CACHE: &str = "public, max-age=300";

const OPENAPI: &str = include_str!("../../../../schemas/openapi.json");
const ASYNCAPI: &str = include_str!("../../../../schemas/asyncapi.json");

pub(crate) async fn schema() -> Response {
    document(hiveops_proto::WS_SCHEMA, "application/schema+json")
}

pub(crate) async fn openapi() -> Response {
    document(OPENAPI, "application/json")
}

pub(crate) async fn asyncapi() -> Response {
    document(ASYNCAPI, "application/json")
}

fn document(text: &'static str, media_type: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static(CACHE)),
    ];
    (headers, text).into_response()
}
