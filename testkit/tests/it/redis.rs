//! What a test may rely on with `RedisServer`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use hiveops_testkit::broker::{RedisOptions, RedisServer};
use hiveops_testkit::wait::PATIENCE;

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_the_restart_on_the_same_port() {
    let mut server = RedisServer::start().unwrap();
    let addr = server.addr();
    assert!(server.command(&["INFO", "server"]).unwrap().contains("redis_version:7."));
    assert_eq!(server.command(&["SET", "key", "one two"]).unwrap(), "OK");
    assert_eq!(server.command(&["RPUSH", "list", "a", "b"]).unwrap(), "2");
    server.kill().unwrap();
    TcpStream::connect(addr).unwrap_err();
    server.restart().unwrap();
    assert_eq!(server.addr(), addr);
    assert_eq!(server.command(&["GET", "key"]).unwrap(), "one two");
    assert_eq!(server.command(&["LRANGE", "list", "0", "-1"]).unwrap(), "a\nb");
    assert_eq!(server.command(&["GET", "nothing"]).unwrap(), "");
}

#[test]
fn a_frozen_server_keeps_its_connections_and_answers_after_the_thaw() {
    let mut server = RedisServer::start().unwrap();
    let mut client = TcpStream::connect(server.addr()).unwrap();
    server.freeze().unwrap();
    client.write_all(b"PING\r\n").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut reply = [0; 7];
    client.read_exact(&mut reply).unwrap_err();
    server.thaw().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"+PONG\r\n");
}

#[test]
fn a_password_is_asked_for_and_is_in_the_url() {
    let options = RedisOptions { password: Some("s3cret".to_owned()), ..RedisOptions::default() };
    let server = RedisServer::start_with(options).unwrap();
    assert_eq!(server.url(), format!("redis://:s3cret@{}", server.addr()));
    assert_eq!(server.command(&["PING"]).unwrap(), "PONG");
    let error = server.command(&["AUTH", "other"]).unwrap_err().to_string();
    assert!(error.starts_with("AUTH: WRONGPASS"), "{error}");
}

#[test]
fn a_server_that_does_not_start_says_why() {
    let options = RedisOptions { config: "nonsense 1".to_owned(), ..RedisOptions::default() };
    let error = RedisServer::start_with(options).unwrap_err().to_string();
    assert!(error.contains("Bad directive or wrong number of arguments"), "{error}");
}
