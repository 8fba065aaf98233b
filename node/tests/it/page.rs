//! The plain page at `/` as far as it shows without a browser; `mobile-pwa/browser` has the rest.

use std::collections::BTreeSet;

use crate::harness::Node;

async fn fetch(node: &Node, path: &str) -> (reqwest::header::HeaderMap, String) {
    let response = reqwest::get(node.http(path)).await.expect("an answer");
    assert_eq!(response.status(), 200, "{path}");
    (response.headers().clone(), response.text().await.expect("a text"))
}

/// What a file of the page loads: `src="tail/…"`, `href="tail/…"` or `from './…'`.
fn loaded(text: &str) -> impl Iterator<Item = String> {
    let names = text.split(['"', '\'']).filter_map(|part| {
        let name = part.strip_prefix("tail/").or_else(|| part.strip_prefix("./"))?;
        let is_file = name.ends_with(".mjs") || name.ends_with(".css");
        is_file.then(|| name.to_owned())
    });
    names.collect::<Vec<_>>().into_iter()
}

#[tokio::test]
async fn the_page_and_every_file_that_it_loads_are_served_under_a_strict_policy() {
    let node =
        Node::start(&[("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_TOKEN", "0123456789abcdef01234567")]).await;
    let (headers, page) = fetch(&node, "/").await;
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    let mut waiting: Vec<String> = loaded(&page).collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        let (headers, text) = fetch(&node, &format!("/tail/{name}")).await;
        let media_type = if name.ends_with(".css") { "text/css" } else { "text/javascript" };
        assert!(headers["content-type"].to_str().unwrap().starts_with(media_type), "{name}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        waiting.extend(loaded(&text));
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none';"));
    assert!(policy.ends_with(&format!("connect-src 'self' ws://{0} wss://{0}", node.address)));
    assert!(policy.contains("require-trusted-types-for 'script'"));
    assert!(!policy.contains("unsafe"));
}

#[tokio::test]
async fn what_the_page_does_not_have_is_a_problem_document() {
    let node = Node::start(&[]).await;
    for path in ["/tail/", "/tail/none.mjs", "/tail/..%2Ftail.html", "/tail/tail.mjs/more", "/dashboard"] {
        let response = reqwest::get(node.http(path)).await.unwrap();
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
    }
}
