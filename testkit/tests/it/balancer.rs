//! What a test may rely on with `Haproxy`.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hiveops_testkit::balancer::{Balance, Haproxy};
use hiveops_testkit::wait::PATIENCE;

/// Says whether it is ready when it is asked, and its name for every other line.
struct Node {
    addr: SocketAddr,
    ready: Arc<AtomicBool>,
}

impl Node {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ready = Arc::new(AtomicBool::new(true));
        let node = Self { addr: listener.local_addr().unwrap(), ready: Arc::clone(&ready) };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, ready) = (stream.unwrap(), Arc::clone(&ready));
                std::thread::spawn(move || serve(stream, name, &ready));
            }
        });
        node
    }
}

/// Until the other side has had enough, which is no failure.
fn serve(mut stream: TcpStream, name: &str, ready: &AtomicBool) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        let answer = if line.starts_with("GET /readyz ") {
            let status = if ready.load(Ordering::SeqCst) { "200 OK" } else { "503 Service Unavailable" };
            let _ = write!(stream, "HTTP/1.0 {status}\r\n\r\n");
            return;
        } else {
            stream.write_all(name.as_bytes())
        };
        if answer.is_err() {
            return;
        }
    }
}

/// A connection through the balancer, and who is at its other end.
fn connect(balancer: &Haproxy) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(balancer.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ask(&mut stream);
    (stream, name)
}

fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"who\n").unwrap();
    let mut name = [0];
    stream.read_exact(&mut name).unwrap();
    char::from(name[0]).to_string()
}

#[test]
fn connections_are_spread_and_a_node_that_is_not_ready_keeps_those_it_has() {
    let (a, b) = (Node::start("a"), Node::start("b"));
    let balancer = Haproxy::start(&[a.addr, b.addr]).unwrap();
    balancer.wait_ready_are(&[0, 1]).unwrap();
    let mut open: Vec<_> = (0..4).map(|_| connect(&balancer)).collect();
    assert_eq!(open.iter().filter(|(_, name)| name == "a").count(), 2);
    a.ready.store(false, Ordering::SeqCst);
    balancer.wait_ready_are(&[1]).unwrap();
    assert!((0..4).all(|_| connect(&balancer).1 == "b"));
    assert!(open.iter_mut().all(|(stream, name)| ask(stream) == *name));
    a.ready.store(true, Ordering::SeqCst);
    balancer.wait_ready_are(&[0, 1]).unwrap();
}

#[test]
fn a_node_that_comes_back_elsewhere_is_found_there() {
    let (a, gone) = (Node::start("a"), TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let balancer = Haproxy::start_with(Balance::RoundRobin, &[a.addr, gone]).unwrap();
    balancer.wait_ready_are(&[0]).unwrap();
    assert_eq!(connect(&balancer).1, "a");
    balancer.move_backend(1, Node::start("b").addr).unwrap();
    balancer.wait_ready_are(&[0, 1]).unwrap();
    let names: BTreeSet<String> = (0..8).map(|_| connect(&balancer).1).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_kill_ends_connections_and_a_restart_is_on_the_same_port() {
    let a = Node::start("a");
    let mut balancer = Haproxy::start(&[a.addr]).unwrap();
    let (mut stream, _) = connect(&balancer);
    balancer.kill().unwrap();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    balancer.restart().unwrap();
    assert_eq!(connect(&balancer).1, "a");
}
