//! The commands that talk to a node, when there is none, and those that need none.

use crate::harness::{hiveops, nobody};

#[test]
fn without_a_node_each_tool_says_so_and_what_to_do() {
    let url = nobody();
    for args in [
        &["publish", "tasks", "task_update", "{\"id\":\"t1\"}", "--url", &url][..],
        &["status", "--url", &url],
        &["limits", "--url", &url],
        &["trace", "order-7", "--url", &url],
        &["healthcheck", "--url", &url],
    ] {
        let ran = hiveops(args);
        assert_eq!(ran.code, Some(1), "{args:?}");
        assert!(ran.err.contains(&format!("cannot reach a node at {url}")), "{}", ran.err);
        assert!(ran.err.contains("hiveops dev") && ran.out.is_empty(), "{}", ran.err);
        assert_eq!(ran.err.matches(&url).count(), 1, "the address stands there twice: {}", ran.err);
    }
}

#[test]
fn what_is_plainly_not_publishable_is_not_sent() {
    for data in ["[1]", "{", "\"text\"", "@/nowhere.json"] {
        let ran = hiveops(&["publish", "tasks", "task_update", data, "--url", &nobody()]);
        assert!(!ran.err.contains("cannot reach") && ran.code != Some(0), "{data}: {}", ran.err);
    }
    let ran = hiveops(&["publish", "tasks", "task_update", "{}", "--correlation-id", "two words"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("1 to 128 characters"), "{}", ran.err);
}

#[test]
fn an_address_that_is_none_is_a_mistake_of_the_command_line() {
    for url in ["localhost:8000", "ftp://a", ""] {
        let ran = hiveops(&["status", "--url", url]);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.err.contains("http://127.0.0.1:8000"), "{}", ran.err);
    }
}

#[test]
fn completions_exist_for_the_common_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = hiveops(&["completions", shell]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.contains("healthcheck"), "{shell}");
    }
}

#[test]
fn help_documents_the_exit_codes() {
    let ran = hiveops(&["--help"]);
    assert!(ran.out.contains("Exit codes:") && ran.out.contains("130"), "{}", ran.out);
    assert_eq!(hiveops(&["nonsense"]).code, Some(2));
}
