//! The routes of the agents, as their callers see them.

use crate::http::testing::Client;
use serde_json::{Value, json};

#[tokio::test]
async fn an_agent_registers_once_and_keeps_its_beginning() {
    let client = Client::new().await;
    let first = client.call("POST", "/api/v1/agents", json!({"id": "a/1", "name": "builder"})).await;
    assert_eq!((first.status, first.header("location")), (201, "/api/v1/agents/a%2F1"));
    assert_eq!(first.body["status"], "active");
    assert_eq!(first.body["lease_seconds"], 30);
    let again = client.call("POST", "/api/v1/agents", json!({"id": "a/1", "name": "other"})).await;
    assert_eq!((again.status, &again.body["version"]), (200, &json!(2)));
    assert_eq!(again.body["registered_at"], first.body["registered_at"]);
    let shown = client.get("/api/v1/agents/a%2F1").await;
    assert_eq!((shown.status, shown.body), (200, again.body));
}

#[tokio::test]
async fn the_same_registration_without_an_id_is_the_same_agent() {
    let client = Client::new().await;
    let headers = [("x-correlation-id", "r1")];
    let register = || client.call_with("POST", "/api/v1/agents", &headers, json!({"name": "x"}));
    let (first, again) = (register().await, register().await);
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.body["id"], again.body["id"]);
}

#[tokio::test]
async fn a_beat_is_written_only_when_it_says_something() {
    let client = Client::new().await;
    client.call("POST", "/api/v1/agents", json!({"id": "a", "name": "x"})).await;
    let quiet = client.call("POST", "/api/v1/agents/a/heartbeat", Value::Null).await;
    assert_eq!((quiet.status, &quiet.body["version"]), (200, &json!(1)));
    let said = json!({"status": "busy", "current_task": "t1", "metrics": {"load": 0.5}});
    let beat = client.call("POST", "/api/v1/agents/a/heartbeat", said).await;
    assert_eq!((beat.status, &beat.body["version"]), (200, &json!(2)));
    assert_eq!(beat.body["current_task"], "t1");
    let freed = client.call("POST", "/api/v1/agents/a/heartbeat", json!({"current_task": null})).await;
    assert_eq!(freed.body["current_task"], Value::Null);
    let unknown = client.call("POST", "/api/v1/agents/b/heartbeat", Value::Null).await;
    assert_eq!(unknown.outcome(), (404, "not_found"));
}

#[tokio::test]
async fn only_a_node_calls_an_agent_stale() {
    let client = Client::new().await;
    let stale = json!({"id": "a", "name": "x", "status": "stale"});
    let refused = client.call("POST", "/api/v1/agents", stale).await;
    assert_eq!(refused.outcome(), (422, "invalid_data"));
    assert!(refused.body["detail"].as_str().unwrap().starts_with("status must not be `stale`"));
}

#[tokio::test]
async fn what_is_too_large_is_named() {
    let client = Client::new().await;
    for (member, value) in [
        ("name", json!("x".repeat(513))),
        ("name", json!("two\nlines")),
        ("agent_type", json!("")),
        ("capabilities", json!(vec!["x"; 65])),
        ("lease_seconds", json!(0)),
        ("metrics", json!({"m": "x".repeat(16_384)})),
    ] {
        let mut wanted = json!({"id": "a", "name": "x"});
        wanted[member] = value;
        let refused = client.call("POST", "/api/v1/agents", wanted).await;
        assert_eq!(refused.outcome(), (422, "invalid_data"), "{member}");
        assert!(refused.body["detail"].as_str().unwrap().starts_with(member), "{}", refused.body);
    }
}

#[tokio::test]
async fn versions_are_checked_by_member_and_by_header() {
    let client = Client::new().await;
    client.call("POST", "/api/v1/agents", json!({"id": "a", "name": "x"})).await;
    let patch = json!({"expected_version": 1, "name": "y"});
    let changed = client.call("PATCH", "/api/v1/agents/a", patch.clone()).await;
    assert_eq!((changed.status, changed.header("etag")), (200, "\"2\""));
    let late = client.call("PATCH", "/api/v1/agents/a", patch).await;
    assert_eq!(late.outcome(), (409, "version_conflict"));
    assert_eq!(late.body["current"]["name"], "y");
    let headers = [("if-match", "\"1\"")];
    let late = client.call_with("PATCH", "/api/v1/agents/a", &headers, json!({"name": "z"})).await;
    assert_eq!(late.outcome(), (412, "precondition_failed"));
    let known = client.call_with("GET", "/api/v1/agents/a", &[("if-none-match", "\"2\"")], Value::Null).await;
    assert_eq!((known.status, known.body), (304, Value::Null));
}

#[tokio::test]
async fn a_goodbye_may_be_said_twice_by_the_same_request() {
    let client = Client::new().await;
    client.call("POST", "/api/v1/agents", json!({"id": "a", "name": "x"})).await;
    let headers = [("x-correlation-id", "bye")];
    for _ in 0..2 {
        let gone = client.call_with("DELETE", "/api/v1/agents/a", &headers, Value::Null).await;
        assert_eq!((gone.status, gone.body), (200, json!({"id": "a", "deleted": true})));
    }
    assert_eq!(client.call("DELETE", "/api/v1/agents/a", Value::Null).await.outcome(), (404, "not_found"));
    assert_eq!(client.get("/api/v1/agents/a").await.outcome(), (404, "not_found"));
}

#[tokio::test]
async fn a_list_goes_on_where_the_page_ended() {
    let client = Client::new().await;
    for n in 0..5 {
        let status = if n == 3 { "busy" } else { "idle" };
        let wanted = json!({"id": format!("a{n}"), "name": "x", "status": status});
        client.call("POST", "/api/v1/agents", wanted).await;
    }
    let ids = |body: &Value| -> Vec<String> {
        body["agents"].as_array().unwrap().iter().map(|a| a["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = client.get("/api/v1/agents?status=idle&limit=2").await.body;
    assert_eq!((ids(&first), &first["next"]), (vec!["a0".to_owned(), "a1".to_owned()], &json!("a1")));
    let rest = client.get("/api/v1/agents?status=idle&limit=2&after=a1").await.body;
    assert_eq!((ids(&rest), &rest["next"]), (vec!["a2".to_owned(), "a4".to_owned()], &Value::Null));
    for bad in ["limit=0", "limit=501", "limit=x", "status=sleepy", "after="] {
        let refused = client.get(&format!("/api/v1/agents?{bad}")).await;
        assert_eq!(refused.outcome(), (400, "bad_request"), "{bad}");
    }
}
