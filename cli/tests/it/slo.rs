//! `hiveops slo check` against a node that works, and against pages that show one that does not.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::harness::{Place, Ran, hiveops, nobody};
use crate::running::Running;
use crate::wire::{Http, Socket};

const DELIVERED: &str = "hiveops_ws_publication_delivered_total";
const DROPPED: &str = "hiveops_ws_publication_dropped_total";
const CONNECTIONS: &str = "hiveops_ws_connections_total";
const LATENCY: &str = "hiveops_ws_publish_to_socket_seconds";

/// What a node has counted when it is scraped.
#[derive(Clone, Copy, Default)]
struct Counted {
    sent: u64,
    failed: u64,
    established: u64,
    refused: u64,
    malformed: u64,
    within: u64,
    deliveries: u64,
    view_age: u64,
}

impl Counted {
    /// In the format that a node exports, with what the objectives read.
    fn page(self) -> String {
        let Self { sent, failed, established, refused, malformed, within, deliveries, view_age } = self;
        let refusals =
            ["node_full", "cluster_full", "not_lent", "rate", "shutdown", "malformed"].map(|reason| {
                let count = match reason {
                    "node_full" => refused,
                    "malformed" => malformed,
                    _ => 0,
                };
                format!("hiveops_ws_handshakes_refused_total{{reason=\"{reason}\"}} {count}\n")
            });
        format!(
            "# TYPE {DELIVERED} counter\n{DELIVERED}{{subscription=\"tasks\"}} {sent}\n\
             {DROPPED}{{subscription=\"tasks\",reason=\"refused\"}} {failed}\n\
             {DROPPED}{{subscription=\"tasks\",reason=\"backpressure\"}} 0\n\
             {DROPPED}{{subscription=\"tasks\",reason=\"closed\"}} 99999\n\
             hiveops_ws_coalesced_total{{subscription=\"tasks\"}} 0\n\
             {CONNECTIONS} {established}\n\
             {LATENCY}_bucket{{le=\"0.1\"}} 0\n{LATENCY}_bucket{{le=\"0.25\"}} {within}\n\
             {LATENCY}_bucket{{le=\"+Inf\"}} {deliveries}\n{LATENCY}_count {deliveries}\n\
             hiveops_ws_control_view_age_seconds {view_age}\n{}",
            refusals.concat()
        )
    }
}

/// A node as far as its metrics go: each scrape gets the next page, and the last one from then on.
struct Exporter {
    url: String,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    fn start(pages: &[Counted]) -> Self {
        Self::of(0, pages.iter().map(|page| page.page()).collect())
    }

    /// The same after some scrapes that fail, and with pages that need not be a node's.
    fn of(failures: usize, pages: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut scrapes = 0;
            for stream in listener.incoming() {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                answer(stream.unwrap(), failures, &pages, &mut scrapes);
            }
        });
        Self { url, over, thread: Some(thread) }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // It waits for a connection.
        let _ = TcpStream::connect(self.url.strip_prefix("http://").unwrap());
        let _ = self.thread.take().unwrap().join();
    }
}

fn answer(stream: TcpStream, failures: usize, pages: &[String], scrapes: &mut usize) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    let is_scrape = first.starts_with("GET /metrics ");
    let (status, body) = match scrapes.checked_sub(failures) {
        _ if !is_scrape => ("404 Not Found", ""),
        None => ("503 Service Unavailable", ""),
        Some(at) => ("200 OK", pages[at.min(pages.len() - 1)].as_str()),
    };
    *scrapes += usize::from(is_scrape);
    let length = body.len();
    // Whoever asked may have gone.
    let _ = write!(
        reader.get_mut(),
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

fn check(urls: &[&str], more: &[&str]) -> (Option<i32>, Value) {
    let urls = urls.join(",");
    let args = [&["slo", "check", "--output", "json", "--url", &urls], more].concat();
    let ran = hiveops(&args);
    (ran.code, shown(&ran))
}

fn shown(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{:?}: {}{}", ran.code, ran.out, ran.err))
}

fn objective<'a>(report: &'a Value, name: &str) -> &'a Value {
    let all = report["objectives"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{report:#}"))
}

/// What goes wrong in a page, from the second scrape on: each has its place.
type Sabotage = fn(&mut Counted, u64);

/// A second of work that went well, and two more.
fn healthy() -> [Counted; 3] {
    [0, 1, 2].map(|at| Counted {
        sent: 50_000 + 1_000 * at,
        failed: 700,
        established: 100 + 10 * at,
        refused: 90,
        malformed: 40 * at,
        within: 1_000 * at,
        deliveries: 1_000 * at,
        view_age: 1,
    })
}

#[test]
fn a_node_under_load_holds_every_objective() {
    let (_node, url) = Running::node(&Place::new(), &[], &[]);
    let (asked, over) = (url.clone(), Arc::new(AtomicBool::new(false)));
    let told = Arc::clone(&over);
    let check = std::thread::spawn(move || {
        // How fast the machine is, is not what is tested: latencies may be what they are.
        let result = check(&[&asked], &["--window", "2s", "--max-burn", "1000"]);
        told.store(true, Ordering::Relaxed);
        result
    });
    let mut published = 0;
    let mut http = Http::connect(&url);
    let mut sockets: Vec<Socket> = Vec::new();
    while !over.load(Ordering::Relaxed) {
        // Sessions that come and go, and read what they get.
        if sockets.len() == 8 {
            sockets.remove(0);
        }
        let mut socket = Socket::connect(&url, "dashboard?subscriptions=tasks", None);
        socket.wait_for("dashboard_initialized");
        sockets.push(socket);
        let data = json!({"id": format!("t{}", published % 100)});
        assert_eq!(http.publish("tasks", "task_update", &[], &data).unwrap().0, 200);
        published += 1;
        sockets.iter_mut().for_each(|socket| {
            socket.wait_for("task_update");
        });
    }
    let (code, report) = check.join().unwrap();
    assert_eq!(code, Some(0), "{report:#}");
    for name in ["delivery", "handshake", "latency", "control_view"] {
        let one = objective(&report, name);
        assert!(one["verdict"] == "holds" && one["total"].as_f64().unwrap() >= 1.0, "{one}");
    }
    for name in ["delivery", "handshake"] {
        assert_eq!(objective(&report, name)["bad"], 0.0, "{report:#}");
    }
    assert_eq!(report["nodes"][0]["error"], Value::Null, "{report:#}");
    assert!(report["nodes"][0]["node_id"].is_string(), "{report:#}");
}

#[test]
fn a_budget_that_burns_is_named_and_the_exit_code_is_1() {
    let sabotages: [(&str, Sabotage); 4] = [
        ("delivery", |page, at| page.failed += 10 * at),
        ("handshake", |page, at| page.refused += at),
        ("latency", |page, at| page.within -= 200 * at),
        ("control_view", |page, at| page.view_age = 4 + at),
    ];
    for (name, sabotage) in sabotages {
        let mut pages = healthy();
        pages.iter_mut().zip(0..).for_each(|(page, at)| sabotage(page, at));
        let exporter = Exporter::start(&pages);
        let (code, report) = check(&[&exporter.url], &["--window", "2s"]);
        let burning: Vec<&str> = report["objectives"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["verdict"] == "burning")
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        assert_eq!((code, burning), (Some(1), vec![name]), "{report:#}");
    }
}

#[test]
fn only_what_happens_in_the_window_counts_unless_the_start_is_asked_for() {
    let exporter = Exporter::start(&healthy());
    let (code, report) = check(&[&exporter.url], &["--window", "2s"]);
    assert_eq!(code, Some(0), "{report:#}");
    let delivery = objective(&report, "delivery");
    assert_eq!((delivery["bad"].as_f64(), delivery["total"].as_f64()), (Some(0.0), Some(2_000.0)));
    assert_eq!(report["window_seconds"], 2);
    let exporter = Exporter::start(&healthy()[2..]);
    let (code, report) = check(&[&exporter.url], &["--since-start"]);
    assert_eq!(code, Some(1), "{report:#}");
    assert_eq!(objective(&report, "delivery")["bad"], 700.0);
    assert_eq!(objective(&report, "handshake")["total"], 210.0);
    assert_eq!(report["window_seconds"], Value::Null);
    let args = ["slo", "check", "--since-start", "--url", &exporter.url, "--max-burn", "1000"];
    let ran = hiveops(&args);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("since the nodes started, 1 node(s)"), "{}", ran.out);
}

#[test]
fn a_node_that_began_anew_meanwhile_is_counted_from_there() {
    let mut pages = healthy();
    // It has sent 30 frames since, of which 2 could not be queued; without them nothing burns.
    pages[2] =
        Counted { sent: 28, failed: 2, established: 3, within: 9, deliveries: 9, ..Counted::default() };
    let exporter = Exporter::start(&pages);
    let (code, report) = check(&[&exporter.url], &["--window", "2s"]);
    let delivery = objective(&report, "delivery");
    assert_eq!(
        (delivery["bad"].as_f64(), delivery["total"].as_f64()),
        (Some(2.0), Some(1_030.0)),
        "{report:#}"
    );
    assert_eq!((code, &report["nodes"][0]["resets"]), (Some(1), &json!(1)), "{report:#}");
    assert_eq!(objective(&report, "latency")["total"], 1_009.0);
}

#[test]
fn a_node_that_cannot_be_read_and_an_objective_without_data_have_codes_of_their_own() {
    let exporter = Exporter::start(&healthy());
    let gone = nobody();
    let (code, report) = check(&[&exporter.url, &gone], &["--window", "2s"]);
    assert_eq!((code, report["verdict"].as_str()), (Some(3), Some("unread")), "{report:#}");
    assert_eq!(objective(&report, "delivery")["verdict"], "holds", "what could be read is judged");
    let unread =
        report["nodes"].as_array().unwrap().iter().find(|node| node["url"] == gone.as_str()).unwrap();
    assert!(unread["error"].as_str().unwrap().contains("cannot reach a node"), "{unread}");

    let quiet = Exporter::start(&healthy()[..1]);
    let (code, report) = check(&[&quiet.url], &["--window", "1s"]);
    assert_eq!((code, report["verdict"].as_str()), (Some(4), Some("no_data")), "{report:#}");
    assert_eq!(check(&[&quiet.url], &["--window", "1s", "--allow-no-data"]).0, Some(0));
    assert_eq!(check(&[&quiet.url], &["--window", "1s", "--objective", "control_view"]).0, Some(0));
}

#[test]
fn a_node_that_was_away_when_the_window_began_has_not_been_read() {
    let pages: Vec<String> = healthy().iter().map(|page| page.page()).collect();
    // Away until the last scrape, which has nothing to compare with; and back in the middle.
    for (failures, window) in [(1, "1s"), (1, "2s")] {
        let late = Exporter::of(failures, pages.clone());
        let (code, report) = check(&[&late.url], &["--window", window, "--objective", "control_view"]);
        assert_eq!((code, report["verdict"].as_str()), (Some(3), Some("unread")), "{report:#}");
        let error = report["nodes"][0]["error"].as_str().unwrap();
        assert!(error.starts_with("nothing is known of the beginning") && error.contains("503"), "{error}");
    }
    // Without a window there is no beginning to miss.
    let late = Exporter::of(0, pages);
    assert_eq!(check(&[&late.url], &["--since-start", "--objective", "control_view"]).0, Some(0));
}

#[test]
fn a_page_of_something_else_is_no_expected_silence_and_hides_no_burn() {
    let other = || Exporter::of(0, vec!["# TYPE up gauge\nup 1\n".to_owned()]);
    let odd = other();
    let (code, report) = check(&[&odd.url], &["--window", "1s", "--allow-no-data"]);
    assert_eq!((code, report["verdict"].as_str()), (Some(4), Some("no_data")), "{report:#}");
    let detail = objective(&report, "delivery")["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("does not export `{DROPPED}`")), "{detail}");
    let mut pages = healthy();
    pages.iter_mut().zip(0..).for_each(|(page, at)| page.failed += 10 * at);
    let (burning, odd) = (Exporter::start(&pages), other());
    let (code, report) = check(&[&odd.url, &burning.url], &["--window", "2s", "--allow-no-data"]);
    assert_eq!(code, Some(1), "{report:#}");
    let delivery = objective(&report, "delivery");
    assert_eq!((delivery["verdict"].as_str(), delivery["bad"].as_f64()), (Some("burning"), Some(20.0)));
    assert_eq!(objective(&report, "latency")["verdict"], "no_data", "it is not known of both");
}

#[test]
fn a_cluster_is_whole_only_when_every_node_says_whom_it_sees() {
    let auth = [("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_TOKEN", "a-token-of-some-length")];
    let whole = ["--since-start", "--objective", "control_view", "--whole-cluster"];
    let (node, _) = Running::node(&Place::new(), &["--admin-listen", "127.0.0.1:0"], &auth);
    let ready = node.err.wait(|line| line.contains("\"message\":\"node is ready\""));
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let admin = format!("http://{}", ready["admin_address"].as_str().unwrap());
    let (code, report) = check(&[&admin], &[&whole[..], &["--token", auth[1].1]].concat());
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["nodes"][0]["stats_error"], Value::Null, "{report:#}");
    // Without the credential nothing is learned of the cluster; its metrics can be read.
    let (code, report) = check(&[&admin], &whole);
    assert_eq!((code, report["verdict"].as_str()), (Some(3), Some("unread")), "{report:#}");
    assert_eq!(report["nodes"][0]["error"], Value::Null, "{report:#}");
    let ran = hiveops(&[&["slo", "check", "--url", &admin], &whole[..]].concat());
    let line = format!("does not say which nodes there are: {admin}: ");
    assert!(ran.out.contains(&line) && ran.out.contains("401"), "{}{}", ran.out, ran.err);
    assert_eq!(check(&[&admin], &whole[..3]).0, Some(0), "nobody asked whether it is whole");
    // What is no node says nothing either.
    let exporter = Exporter::start(&healthy());
    assert_eq!(check(&[&exporter.url], &whole).0, Some(3));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_read() {
    let place = Place::new();
    std::fs::write(place.dir.path().join("wrong.json"), "{\"version\": 2, \"objectives\": {}}").unwrap();
    let cases: [(&[&str], &str); 5] = [
        (&["--objectives", "wrong.json"], "version 2 is not known"),
        (&["--objectives", "missing.json"], "cannot be read"),
        (&["--objective", "speed"], "there is no objective `speed`"),
        (&["--url", "ftp://n1"], "is not the address of a node"),
        (&["--window", "3d"], "`d` is no unit"),
    ];
    for (args, problem) in cases {
        let ran = place.run(&[&["slo", "check"], args].concat(), &[]);
        assert!(ran.code == Some(2) && ran.err.contains(problem), "{args:?}: {:?} {}", ran.code, ran.err);
    }
}

#[test]
fn one_node_under_two_names_would_count_twice_and_is_refused() {
    let (_node, url) = Running::node(&Place::new(), &[], &[]);
    let other = url.replace("127.0.0.1", "localhost");
    let ran = hiveops(&["slo", "check", "--since-start", "--url", &format!("{url},{other}")]);
    assert!(ran.code == Some(2) && ran.err.contains("lead to the node"), "{:?} {}", ran.code, ran.err);
}
