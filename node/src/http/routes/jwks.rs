//! `GET /.well-known/jwks.json`: the public keys that tokens are checked with, as this node knows them
//! (RFC 7517, RFC 8037).

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hiveops_proto::Timestamp;
use hiveops_proto::access::{KEY_PUBLISH_WAIT_MS, VerifyingKey};
use http::HeaderMap;
use http::header::HeaderValue;
use serde_json::{Value, json};

use crate::app::App;
use crate::http::conditional;

const MEDIA_TYPE: &str = "application/jwk-set+json";
/// How long the answer may be kept. A new key signs [`KEY_PUBLISH_WAIT_MS`] after it was published: whoever kept
/// the answer of the moment before must have asked again by then, and a part is left for the node to hear of it.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=30");
const _: () = assert!(2 * 30_000 <= KEY_PUBLISH_WAIT_MS);

pub(crate) async fn show(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let set = set(&app.control.view().access.keys, app.clock.timestamp());
    conditional::document(&headers, MEDIA_TYPE, KEPT, set.to_string().into_bytes())
}

/// Nothing of a plane without keys. What has been retired is left out, although a view that nobody has updated
/// since still has it.
fn set(keys: &[VerifyingKey], now: Timestamp) -> Value {
    let good = keys.iter().filter(|key| key.retire_after.is_none_or(|end| end > now));
    let keys = good.map(|key| {
        json!({"kty": "OKP", "crv": "Ed25519", "x": key.x, "kid": key.kid, "use": "sig", "alg": "EdDSA"})
    });
    json!({"keys": keys.collect::<Vec<Value>>()})
}

#[cfg(test)]
mod tests {
    use hiveops_proto::id::KeyId;

    use super::*;

    #[test]
    fn a_retired_key_is_left_out_also_of_an_old_view() {
        let key = |kid: &str, retire_after| VerifyingKey {
            kid: KeyId::new(kid).unwrap(),
            x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned(),
            not_before: Timestamp::from_millis(0),
            retire_after,
        };
        let keys = [key("old", Some(Timestamp::from_millis(5))), key("new", None)];
        let kids = |ms| -> Vec<String> {
            let set = set(&keys, Timestamp::from_millis(ms));
            set["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| key["kid"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(kids(4), ["old", "new"]);
        assert_eq!(kids(5), ["new"]);
        assert_eq!(set(&[], Timestamp::from_millis(0)), json!({"keys": []}));
    }
}
