//! A node that ends TLS, as the tools see it: they know it by its authority or by its very certificate.

use std::ops::Range;

use hiveops_testkit::certificates::Authority;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::Place;
use crate::running::Running;

/// A running node whose certificate is for this name, and where its files are.
fn node(place: &Place, authority: &Authority, name: &str) -> (Running, String, String) {
    let identity = authority.issue(&[name]).unwrap();
    let files = (place.dir.path().join("cert.pem"), place.dir.path().join("key.pem"));
    identity.write(&files).unwrap();
    let (cert, key) = (files.0.to_str().unwrap().to_owned(), files.1.to_str().unwrap().to_owned());
    let (node, url) = Running::dev(place, &["--tls-cert", &cert, "--tls-key", &key], &[]);
    (node, url, cert)
}

#[test]
fn the_tools_reach_a_node_whose_authority_they_trust_and_no_other() {
    let (place, authority) = (Place::new(), Authority::new().unwrap());
    let (_node, url, _) = node(&place, &authority, "127.0.0.1");
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let ca = place.dir.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let trusting = [("HIVEOPS_URL", url.as_str()), ("HIVEOPS_CA", ca.to_str().unwrap())];
    let watching = Running::start(&Place::new(), &["watch", "--json", "tasks"], &trusting);
    watching.out.wait(|line| line.contains("\"snapshot\""));
    let publish = ["publish", "tasks", "task_update", r#"{"id":"t1"}"#, "--json"];
    let ran = Place::new().run(&publish, &trusting);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    let reply: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(reply["clients_reached"], 1);
    watching.out.wait(|line| line.contains("\"task_update\""));
    let status = Place::new().run(&["status"], &trusting);
    assert_eq!(status.code, Some(0), "{}", status.err);
    // Who trusts only the system is told why it goes no further.
    for args in [&["status", "--url", &url][..], &["watch", "tasks", "--url", &url]] {
        let ran = Place::new().run(args, &[]);
        assert!(ran.code == Some(1) && ran.err.contains("UnknownIssuer"), "{}", ran.err);
    }
    let none = Place::new().run(&["status", "--url", &url, "--ca", "nowhere.pem"], &[]);
    assert!(none.code == Some(1) && none.err.contains("nowhere.pem"), "{}", none.err);
}

#[test]
fn a_node_is_known_by_its_own_certificate_whatever_its_name() {
    let (place, authority) = (Place::new(), Authority::new().unwrap());
    let (node, url, cert) = node(&place, &authority, "ops.example.com");
    let healthy = Place::new().run(&["healthcheck", "--url", &url, "--ca", &cert], &[]);
    assert_eq!((healthy.code, healthy.out.as_str()), (Some(0), "ready\n"), "{}", healthy.err);
    let listen = url.strip_prefix("https://").unwrap();
    let key = place.dir.path().join("key.pem");
    // Its own environment says no more than that it ends TLS.
    let own = [("HIVEOPS_TLS_CERT", cert.as_str())];
    let healthy = Place::new().run(&["healthcheck", "--url", &url], &own);
    assert_eq!((healthy.code, healthy.out.as_str()), (Some(0), "ready\n"), "{}", healthy.err);
    let doctor = [
        ("HIVEOPS_LISTEN", listen),
        ("HIVEOPS_TLS_CERT", cert.as_str()),
        ("HIVEOPS_TLS_KEY", key.to_str().unwrap()),
    ];
    let ran = Place::new().run(&["doctor"], &doctor);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    assert!(ran.out.contains("is held by a HiveOps node") && ran.out.contains("is good for"), "{}", ran.out);
    // It takes a signal that would end another process.
    node.signal(Signal::HUP);
    let healthy = Place::new().run(&["healthcheck", "--url", &url, "--ca", &cert], &[]);
    assert_eq!(healthy.code, Some(0), "{}", healthy.err);
}

#[test]
fn a_node_is_healthy_whatever_became_of_the_files_that_it_could_not_take_over() {
    let (place, authority) = (Place::new(), Authority::new().unwrap());
    let (node, url, cert) = node(&place, &authority, "ops.example.com");
    // A renewal that went wrong: a new certificate, and the key of the old one.
    let renewed = authority.issue(&["ops.example.com"]).unwrap();
    std::fs::write(&cert, &renewed.certificate).unwrap();
    node.signal(Signal::HUP);
    node.err.wait(|line| line.contains("certificate cannot be loaded"));
    let healthy = Place::new().run(&["healthcheck", "--url", &url], &[("HIVEOPS_TLS_CERT", &cert)]);
    assert_eq!((healthy.code, healthy.out.as_str()), (Some(0), "ready\n"), "{}", healthy.err);
    // The two fit, and are not those that the node shows.
    let files = (place.dir.path().join("other-cert.pem"), place.dir.path().join("other-key.pem"));
    renewed.write(&files).unwrap();
    let doctor = [
        ("HIVEOPS_LISTEN", url.strip_prefix("https://").unwrap()),
        ("HIVEOPS_TLS_CERT", files.0.to_str().unwrap()),
        ("HIVEOPS_TLS_KEY", files.1.to_str().unwrap()),
    ];
    let ran = Place::new().run(&["doctor"], &doctor);
    assert!(ran.code == Some(0) && ran.out.contains("is held by a HiveOps node"), "{}", ran.out);
}

#[test]
fn doctor_looks_at_both_ends_of_every_certificate() {
    let (place, authority) = (Place::new(), Authority::new().unwrap());
    let (now, ended) = (2_000..3_000, 2_000..2_010);
    let of = |own: Range<i32>, behind: Range<i32>| {
        let mut identity = authority.issue_for(&["localhost"], own).unwrap();
        identity.certificate.push_str(&authority.issue_for(&["issuer"], behind).unwrap().certificate);
        let files = (place.dir.path().join("cert.pem"), place.dir.path().join("key.pem"));
        identity.write(&files).unwrap();
        let env = [("HIVEOPS_TLS_CERT", "cert.pem"), ("HIVEOPS_TLS_KEY", "key.pem")];
        place.run(&["doctor", "--listen", "127.0.0.1:0"], &env)
    };
    for (own, behind, said) in [
        (ended.clone(), now.clone(), "cert.pem is good no more"),
        (2_900..3_000, now.clone(), "cert.pem is good only from 2900-01-01"),
        (now.clone(), ended, "a certificate behind the node's own in cert.pem is good no more"),
    ] {
        let ran = of(own, behind);
        let line = format!("fail  tls.certificate  {said}");
        assert!(ran.code == Some(1) && ran.out.contains(&line), "{said}: {}", ran.out);
    }
    let ran = of(now.clone(), now);
    assert!(ran.code == Some(0) && ran.out.contains("ok    tls.certificate "), "{}", ran.out);
}

#[test]
fn a_key_without_its_certificate_is_a_mistake_with_its_fix() {
    let ran = Place::new().run(&["node"], &[("HIVEOPS_TLS_KEY", "key.pem")]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(
        ran.err.contains("HIVEOPS_TLS_KEY") && ran.err.contains("set HIVEOPS_TLS_CERT as well"),
        "{}",
        ran.err
    );
}
