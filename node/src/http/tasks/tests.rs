//! The routes of the tasks, as their callers see them.

use std::sync::Arc;

use crate::board::leases;
use crate::board::service::{Identity, Outcome};
use crate::http::testing::Client;
use hiveops_proto::board::{TaskPatch, TaskStatus};
use hiveops_proto::{CorrelationId, Key, Timestamp};
use serde_json::{Value, json};

const TASKS: &str = "/api/v1/tasks";

async fn create(client: &Client, id: &str) {
    let made = client.call("POST", TASKS, json!({"id": id, "title": "x"})).await;
    assert_eq!(made.status, 201, "{}", made.body);
}

#[tokio::test]
async fn a_task_goes_its_way() {
    let client = Client::new().await;
    let made = client.call("POST", TASKS, json!({"id": "t", "title": "build", "priority": "high"})).await;
    assert_eq!((made.status, made.header("location")), (201, "/api/v1/tasks/t"));
    assert_eq!((&made.body["status"], &made.body["version"]), (&json!("pending"), &json!(1)));
    let begun = json!({"status": "in_progress", "assigned_agent": "a1"});
    let begun = client.call("PATCH", "/api/v1/tasks/t", begun).await;
    assert!(begun.body["started_at"].is_string() && begun.body["finished_at"].is_null());
    let done = client.call("PATCH", "/api/v1/tasks/t", json!({"status": "completed"})).await;
    assert!(done.body["finished_at"].is_string());
    assert_eq!(done.header("etag"), "\"3\"");
    let listed = client.get("/api/v1/tasks?status=completed&assigned_agent=a1").await;
    assert_eq!(listed.body, json!({"tasks": [done.body], "next": null}));
}

#[tokio::test]
async fn a_repeated_creation_is_the_same_task_and_another_of_that_id_is_refused() {
    let client = Client::new().await;
    let headers = [("x-correlation-id", "c1")];
    let make = |body: Value| client.call_with("POST", TASKS, &headers, body);
    let (first, again) = (make(json!({"title": "x"})).await, make(json!({"title": "x"})).await);
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.body, again.body);
    let other = make(json!({"title": "y"})).await;
    assert_eq!(other.status, 201, "one cause may make several tasks");
    let id = first.body["id"].clone();
    let taken = client.call("POST", TASKS, json!({"id": id, "title": "z"})).await;
    assert_eq!(taken.outcome(), (409, "already_exists"));
    assert_eq!(taken.body["current"]["title"], "x");
}

#[tokio::test]
async fn a_change_that_is_sent_again_is_made_once() {
    let client = Client::new().await;
    create(&client, "t").await;
    let headers = [("x-correlation-id", "c2")];
    let patch = json!({"expected_version": 1, "status": "blocked"});
    for _ in 0..2 {
        let changed = client.call_with("PATCH", "/api/v1/tasks/t", &headers, patch.clone()).await;
        assert_eq!((changed.status, &changed.body["version"]), (200, &json!(2)));
    }
    for n in 0..9 {
        let own = format!("other-{n}");
        let headers = [("x-correlation-id", own.as_str())];
        client.call_with("PATCH", "/api/v1/tasks/t", &headers, json!({"description": "d"})).await;
    }
    // The task has forgotten the change by now; the bus has not.
    let patch = json!({"status": "blocked"});
    let late = client.call_with("PATCH", "/api/v1/tasks/t", &headers, patch).await;
    assert_eq!((late.status, &late.body["version"]), (200, &json!(11)));
}

#[tokio::test]
async fn one_cause_may_change_a_task_more_than_once() {
    let client = Client::new().await;
    let headers = [("x-correlation-id", "job-7")];
    let made = client.call_with("POST", TASKS, &headers, json!({"id": "t", "title": "x"})).await;
    assert_eq!(made.status, 201);
    for (status, version) in [("in_progress", 2), ("completed", 3), ("completed", 3)] {
        let changed = client.call_with("PATCH", "/api/v1/tasks/t", &headers, json!({"status": status})).await;
        assert_eq!((&changed.body["status"], &changed.body["version"]), (&json!(status), &json!(version)));
    }
}

#[tokio::test]
async fn a_removal_that_is_sent_again_is_made_once() {
    let client = Client::new().await;
    create(&client, "t").await;
    let wrong = [("if-match", "\"7\"")];
    let refused = client.call_with("DELETE", "/api/v1/tasks/t", &wrong, Value::Null).await;
    assert_eq!(refused.outcome(), (412, "precondition_failed"));
    let headers = [("x-correlation-id", "gone"), ("if-match", "\"1\"")];
    for _ in 0..2 {
        let gone = client.call_with("DELETE", "/api/v1/tasks/t", &headers, Value::Null).await;
        assert_eq!((gone.status, gone.body), (200, json!({"id": "t", "deleted": true})));
    }
    assert_eq!(client.call("DELETE", "/api/v1/tasks/t", Value::Null).await.outcome(), (404, "not_found"));
}

#[tokio::test]
async fn a_creation_that_comes_again_after_its_task_was_removed_does_not_bring_it_back() {
    let client = Client::new().await;
    let headers = [("x-correlation-id", "c1")];
    let body = json!({"id": "t", "title": "x"});
    client.call_with("POST", TASKS, &headers, body.clone()).await;
    client.call("DELETE", "/api/v1/tasks/t", Value::Null).await;
    let late = client.call_with("POST", TASKS, &headers, body).await;
    assert_eq!(late.outcome(), (409, "idempotency_conflict"));
    assert_eq!(client.get("/api/v1/tasks/t").await.status, 404);
}

#[tokio::test]
async fn a_batch_says_of_each_operation_what_became_of_it() {
    let client = Client::new().await;
    let operations = json!([
        {"op": "create", "correlation_id": "1", "task": {"id": "t", "title": "x"}},
        {"op": "create", "correlation_id": "1", "task": {"id": "t", "title": "x"}},
        {"op": "create", "correlation_id": "2", "task": {"id": "t", "title": "other"}},
        {"op": "update", "correlation_id": "3", "id": "t", "changes": {"expected_version": 5}},
        {"op": "update", "correlation_id": "4", "id": "t", "changes": {"title": ""}},
        {"op": "update", "correlation_id": "5", "id": "t", "changes": {"status": "cancelled"}},
        {"op": "delete", "correlation_id": "6", "id": "u"},
        {"op": "delete", "correlation_id": "7", "id": "t", "expected_version": 2},
        {"op": "delete", "correlation_id": "7", "id": "t", "expected_version": 2},
    ]);
    let synced = client.call("POST", "/api/v1/sync/tasks", json!({"operations": operations})).await;
    assert_eq!(synced.status, 200, "{}", synced.body);
    let results = synced.body["results"].as_array().unwrap();
    let found: Vec<_> = results.iter().map(|result| result["status"].as_str().unwrap()).collect();
    let applied_twice = ["applied", "duplicate"];
    assert_eq!(found[..2], applied_twice);
    assert_eq!(found[2..6], ["conflict", "conflict", "rejected", "applied"]);
    assert_eq!(found[6..], ["rejected", "applied", "duplicate"]);
    assert_eq!(results[2]["task"]["title"], "x");
    assert_eq!(results[4]["detail"], "title must have 1 to 512 bytes");
}

#[tokio::test]
async fn a_batch_is_bounded() {
    let client = Client::new().await;
    let operation = json!({"op": "delete", "correlation_id": "6", "id": "u"});
    let body = json!({"operations": vec![operation; 101]});
    let refused = client.call("POST", "/api/v1/sync/tasks", body).await;
    assert_eq!(refused.outcome(), (422, "invalid_data"));
}

#[tokio::test]
async fn writers_on_many_nodes_all_get_their_change_in() {
    let client = Client::new().await;
    create(&client, "t").await;
    let id = Key::new("t").unwrap();
    let nodes = [client.bench.node().await, client.bench.node().await, client.bench.node().await];
    let change = |writer: usize, n: usize| {
        let (node, id) = (Arc::clone(&nodes[writer]), id.clone());
        let by = CorrelationId::new(&format!("w{writer}-{n}")).unwrap();
        async move {
            let patch = TaskPatch { description: Some(n.to_string()), ..TaskPatch::default() };
            node.patch_task(&id, &patch, None, &by, Identity::Own).await.unwrap()
        }
    };
    for n in 0..10 {
        tokio::join!(change(0, n), change(1, n), change(2, n));
    }
    assert_eq!(nodes[0].task(&id).unwrap().version, 31);
}

#[tokio::test]
async fn a_key_that_holds_another_kind_of_object_is_nobodys_task_until_somebody_makes_one() {
    let client = Client::new().await;
    let data = hiveops_proto::Payload::parse(r#"{"id":"t","status":"done"}"#).unwrap();
    let by = CorrelationId::new("x").unwrap();
    let request = crate::publisher::Request::new("tasks", "task_update", data, by.clone());
    client.bench.publisher().publish(request).await.unwrap();
    let node = client.bench.node().await;
    let id = Key::new("t").unwrap();
    assert!(node.task(&id).is_err());
    let patch = TaskPatch::default();
    assert!(node.patch_task(&id, &patch, None, &by, Identity::Own).await.is_err());
    let wanted = serde_json::from_str(r#"{"id":"t","title":"x"}"#).unwrap();
    node.create_task(&wanted, &by).await.unwrap();
    assert_eq!(node.task(&id).unwrap().title, "x");
    let other = CorrelationId::new("y").unwrap();
    let refused = node.create_task(&wanted, &other).await.unwrap_err();
    assert_eq!(refused.to_string(), "`t` exists already");
}

#[tokio::test]
async fn a_lease_that_ran_out_is_shown_once_and_a_change_renews_it() {
    let client = Client::new().await;
    create(&client, "t").await;
    let node = client.bench.node().await;
    let id = Key::new("t").unwrap();
    let begin = TaskPatch { status: Some(TaskStatus::InProgress), ..TaskPatch::default() };
    let by = CorrelationId::new("begin").unwrap();
    let Outcome::Applied(begun) = node.patch_task(&id, &begin, None, &by, Identity::Own).await.unwrap()
    else {
        panic!("it is new")
    };
    let late = Timestamp::from_millis(begun.updated_at.as_millis() + 300_001);
    let changes = leases::due(&node.board().read(), late);
    assert_eq!(changes.len(), 1);
    leases::apply(&node, changes.clone()).await;
    leases::apply(&node, changes).await;
    let stale = node.task(&id).unwrap();
    assert_eq!((stale.stale, stale.version), (true, begun.version + 1));
    let by = CorrelationId::new("touch").unwrap();
    node.patch_task(&id, &TaskPatch::default(), None, &by, Identity::Own).await.unwrap();
    assert!(!node.task(&id).unwrap().stale);
}
