//! The battery: every way to bend a token ends in its own denial.

use hiveops_proto::access::{Revocation, Role};
use jsonwebtoken::EncodingKey;
use serde_json::{Value, json};

use super::*;
use crate::auth::testing::{KID, NOW, PUBLIC, at, claims, header, key, revoked, sign, signed, view};

fn verify(token: &str) -> Result<AccessClaims, Denial> {
    let vouched = Verifier::new(&view()).verify(token, at(NOW + 1))?;
    assert_eq!(vouched.kid.as_str(), KID);
    Ok(vouched.claims)
}

/// The denial of a token whose signature is good, whatever it says.
fn denied(header: &Value, claims: &Value) -> Denial {
    verify(&signed(&header.to_string(), &claims.to_string())).unwrap_err()
}

fn good() -> Value {
    serde_json::to_value(claims("ada", Role::Viewer)).unwrap()
}

fn with(name: &str, value: Value) -> Value {
    let mut changed = good();
    changed[name] = value;
    changed
}

fn head_with(name: &str, value: Value) -> Value {
    let mut changed = header();
    changed[name] = value;
    changed
}

#[test]
fn a_token_of_control_says_whose_it_is() {
    let claims = claims("ada", Role::Operator);
    assert_eq!(verify(&sign(&claims)), Ok(claims));
    // A claim that a later control adds does no harm, and `typ` may be left out.
    let mut more = good();
    more["deep"] = json!([[[{"x": 1}]]]);
    assert!(verify(&signed(&json!({"alg": "EdDSA", "kid": KID}).to_string(), &more.to_string())).is_ok());
}

#[test]
fn no_algorithm_but_the_one_is_looked_at() {
    for algorithm in ["none", "None", "NONE", "HS256", "ES256", "RS256", "eddsa", "Ed25519", ""] {
        assert_eq!(denied(&head_with("alg", json!(algorithm)), &good()), Denial::Algorithm, "{algorithm}");
    }
    let mut without = header();
    without.as_object_mut().unwrap().remove("alg");
    assert_eq!(denied(&without, &good()), Denial::Algorithm);
    // Without a signature, and with none of the right length.
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", encode(&head_with("alg", json!("none"))), encode(&good()));
    assert_eq!(verify(&unsigned).unwrap_err(), Denial::Algorithm);
    let unsigned = format!("{}.{}.", encode(&header()), encode(&good()));
    assert_eq!(verify(&unsigned).unwrap_err(), Denial::Signature);
}

#[test]
fn the_public_key_is_no_secret_to_sign_with() {
    let header = head_with("alg", json!("HS256"));
    for secret in [PUBLIC.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(PUBLIC).unwrap()] {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for header in [&header, &crate::auth::testing::header()] {
            let message = format!("{}.{}", encode(header), encode(&good()));
            let key = EncodingKey::from_secret(&secret);
            let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
            let denial = verify(&format!("{message}.{signature}")).unwrap_err();
            assert!(matches!(denial, Denial::Algorithm | Denial::Signature), "{denial:?}");
        }
    }
}

#[test]
fn a_key_is_named_and_never_fetched_or_brought_along() {
    for kid in ["k2", "../../etc/passwd", "/dev/null", "", "k1 ", "' or 1=1", &"k".repeat(65), "k1\0"] {
        assert_eq!(denied(&head_with("kid", json!(kid)), &good()), Denial::UnknownKey, "{kid}");
    }
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": PUBLIC});
    for (name, value) in [
        ("jku", json!("https://evil.example/jwks")),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["AAAA"])),
        ("jwk", jwk),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("unknown", json!(null)),
        ("typ", json!("at+jwt")),
        ("typ", json!(1)),
        ("kid", json!(1)),
        ("kid", json!(null)),
        ("alg", json!(["EdDSA"])),
    ] {
        assert_eq!(denied(&head_with(name, value), &good()), Denial::Header, "{name}");
    }
    let mut without = header();
    without.as_object_mut().unwrap().remove("kid");
    assert_eq!(denied(&without, &good()), Denial::Header);
}

#[test]
fn what_stands_twice_is_refused_however_it_is_written() {
    let good = good().to_string();
    for header in [
        r#"{"alg":"EdDSA","alg":"EdDSA","kid":"k1"}"#,
        r#"{"alg":"none","kid":"k1","alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","kid":"k1","k\u0069d":"k1"}"#,
    ] {
        assert_eq!(verify(&signed(header, &good)).unwrap_err(), Denial::Header, "{header}");
    }
    let open = good.strip_suffix('}').unwrap();
    for twice in [r#","role":"super_admin"}"#, r#","r\u006fle":"super_admin"}"#, r#","x":1,"x":1}"#] {
        let claims = format!("{open}{twice}");
        assert_eq!(verify(&signed(&header().to_string(), &claims)).unwrap_err(), Denial::Claims, "{twice}");
    }
}

#[test]
fn claims_are_of_their_type_and_all_there() {
    for exp in [
        json!("1795000600"),
        json!(1_795_000_600.5),
        json!(1_795_000_600.0),
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(null),
        json!([NOW + 600]),
        json!(NOW),
        json!(NOW + 601),
        json!(NOW - 1),
    ] {
        assert_eq!(denied(&header(), &with("exp", exp.clone())), Denial::Claims, "{exp}");
    }
    for (name, value) in [
        ("iat", json!("1795000000")),
        ("iat", json!(1.5)),
        ("role", json!("root")),
        ("sub", json!("a b")),
        ("sub", json!(["ada"])),
        ("jti", json!("")),
        ("sid", json!({})),
        ("gen", json!(-1)),
        ("aud", json!(["hiveops"])),
        ("iss", json!(null)),
    ] {
        assert_eq!(denied(&header(), &with(name, value)), Denial::Claims, "{name}");
    }
    for name in ["iss", "aud", "sub", "role", "jti", "sid", "gen", "iat", "exp"] {
        let mut without = good();
        without.as_object_mut().unwrap().remove(name);
        assert_eq!(denied(&header(), &without), Denial::Claims, "{name}");
    }
    let huge = r#"{"exp":999999999999999999999999999999}"#;
    assert_eq!(verify(&signed(&header().to_string(), huge)).unwrap_err(), Denial::Claims);
}

#[test]
fn what_is_no_token_is_malformed_and_what_is_too_long_is_not_even_read() {
    let token = sign(&claims("ada", Role::Viewer));
    let parts: Vec<&str> = token.split('.').collect();
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "abc".to_owned(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}."),
        format!("{token}.{}", parts[2]),
        format!(".{}.{}", parts[1], parts[2]),
        format!("{}..{}", parts[0], parts[2]),
        format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
        format!("ä.{}.{}", parts[1], parts[2]),
        format!("{}.{}.{}", URL_SAFE_NO_PAD.encode("[1]"), parts[1], parts[2]),
        format!("{}.{}.{}", URL_SAFE_NO_PAD.encode("{"), parts[1], parts[2]),
    ] {
        assert_eq!(verify(&bad).unwrap_err(), Denial::Malformed, "{bad}");
    }
    assert_eq!(verify(&"a".repeat(100 * 1_024)).unwrap_err(), Denial::TooLarge);
    assert_eq!(verify(&format!("{token}{}", "A".repeat(TOKEN_BYTES_MAX))).unwrap_err(), Denial::TooLarge);
}

#[test]
fn depth_costs_nothing_and_brings_nothing() {
    let deep = format!("{}{}", "[".repeat(1_200), "]".repeat(1_200));
    let header_text = format!(r#"{{"alg":"EdDSA","kid":"k1","x":{deep}}}"#);
    assert_eq!(verify(&signed(&header_text, "{}")).unwrap_err(), Denial::Header);
    let good = good().to_string();
    let claims = format!(r#"{},"x":{}}}"#, good.strip_suffix('}').unwrap(), &deep);
    // Whether the parser goes that deep or not, it neither falls over nor lets anything else in.
    assert!(matches!(
        verify(&signed(&header().to_string(), &claims)),
        Ok(_) | Err(Denial::Claims | Denial::TooLarge)
    ));
    let many: String = (0..64).map(|n| format!(r#","x{n}":0"#)).collect();
    let claims = format!("{}{many}}}", good.strip_suffix('}').unwrap());
    assert_eq!(verify(&signed(&header().to_string(), &claims)).unwrap_err(), Denial::Claims);
}

#[test]
fn a_changed_token_is_signed_by_nobody() {
    let token = sign(&claims("ada", Role::Viewer));
    let parts: Vec<&str> = token.split('.').collect();
    let promoted = URL_SAFE_NO_PAD.encode(with("role", json!("super_admin")).to_string());
    let forged = format!("{}.{promoted}.{}", parts[0], parts[2]);
    assert_eq!(verify(&forged).unwrap_err(), Denial::Signature);
    let cut = format!("{}.{}.{}", parts[0], parts[1], &parts[2][..84]);
    assert_eq!(verify(&cut).unwrap_err(), Denial::Signature);
}

#[test]
fn another_cluster_or_another_reader_is_another_matter() {
    assert_eq!(denied(&header(), &with("iss", json!("c2"))), Denial::Issuer);
    assert_eq!(denied(&header(), &with("aud", json!("hiveops2"))), Denial::Audience);
    let token = sign(&claims("ada", Role::Viewer));
    let nobodys = AccessView { cluster_id: None, ..view() };
    assert_eq!(Verifier::new(&nobodys).verify(&token, at(NOW)).unwrap_err(), Denial::Issuer);
    assert_eq!(Verifier::default().verify(&token, at(NOW)).unwrap_err(), Denial::UnknownKey);
}

#[test]
fn a_token_is_good_from_its_issue_to_its_end_give_or_take_the_leeway() {
    let verifier = Verifier::new(&view());
    let token = sign(&claims("ada", Role::Viewer));
    let at_second = |second| verifier.verify(&token, at(second)).map(|_| ());
    assert_eq!(at_second(NOW - 31), Err(Denial::NotYet));
    assert_eq!(at_second(NOW - 30), Ok(()));
    assert_eq!(at_second(NOW + 600), Ok(()));
    assert_eq!(at_second(NOW + 629), Ok(()));
    assert_eq!(at_second(NOW + 630), Err(Denial::Expired));
}

#[test]
fn a_key_is_good_from_its_publication_to_its_end() {
    let token = sign(&claims("ada", Role::Viewer));
    let with = |change: fn(&mut VerifyingKey)| {
        let mut key = key();
        change(&mut key);
        Verifier::new(&AccessView { keys: vec![key], ..view() }).verify(&token, at(NOW + 1)).map(|_| ())
    };
    assert_eq!(with(|key| key.not_before = at(NOW + 31)), Ok(()));
    assert_eq!(with(|key| key.not_before = at(NOW + 32)), Err(Denial::KeyNotYet));
    assert_eq!(with(|key| key.retire_after = Some(at(NOW + 2))), Ok(()));
    assert_eq!(with(|key| key.retire_after = Some(at(NOW + 1))), Err(Denial::KeyRetired));
    assert_eq!(with(|key| key.x = "short".to_owned()), Err(Denial::UnknownKey));
    let other = "O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik";
    let verifier =
        Verifier::new(&AccessView { keys: vec![VerifyingKey { x: other.to_owned(), ..key() }], ..view() });
    assert_eq!(verifier.verify(&token, at(NOW)).unwrap_err(), Denial::Signature);
}

#[test]
fn each_revocation_ends_what_it_names_and_nothing_else() {
    let token = sign(&claims("ada", Role::Viewer));
    let after = |subject| Verifier::new(&revoked(subject)).verify(&token, at(NOW + 1)).map(|_| ());
    let user = |user: &str, below_generation| RevokedSubject::User {
        user: user.parse().unwrap(),
        below_generation,
        changed_role: None,
    };
    assert_eq!(after(RevokedSubject::Token { jti: "t1".parse().unwrap() }), Err(Denial::Revoked));
    assert_eq!(after(RevokedSubject::Token { jti: "t2".parse().unwrap() }), Ok(()));
    assert_eq!(after(RevokedSubject::Family { family: "f1".parse().unwrap() }), Err(Denial::Revoked));
    assert_eq!(after(RevokedSubject::Family { family: "f2".parse().unwrap() }), Ok(()));
    assert_eq!(after(user("ada", 4)), Err(Denial::Revoked));
    assert_eq!(after(user("ada", 3)), Ok(()));
    assert_eq!(after(user("bob", 9)), Ok(()));
}

#[test]
fn another_role_is_for_open_sockets_of_those_who_lost_nothing_else() {
    let token = sign(&claims("ada", Role::SuperAdmin));
    let vouched = Verifier::new(&view()).verify(&token, at(NOW + 1)).unwrap();
    let changed = |since_generation| RevokedSubject::User {
        user: "ada".parse().unwrap(),
        below_generation: 5,
        changed_role: Some(ChangedRole { role: Role::Viewer, since_generation }),
    };
    let viewer = Standing::Role { role: Role::Viewer, generation: 5 };
    for (since, standing) in [(2, viewer), (3, viewer), (4, Standing::Revoked)] {
        let verifier = Verifier::new(&revoked(changed(since)));
        assert_eq!(verifier.standing(&vouched, at(NOW + 1)), standing, "since {since}");
        assert_eq!(verifier.verify(&token, at(NOW + 1)), Err(Denial::Revoked), "nobody comes in by it");
    }
    // What ends a login ends its sockets, whatever else has changed.
    let mut both = revoked(changed(3));
    let subject = RevokedSubject::Family { family: "f1".parse().unwrap() };
    both.revocations.push(Revocation { subject, until: at(NOW + 660) });
    assert_eq!(Verifier::new(&both).standing(&vouched, at(NOW + 1)), Standing::Revoked);
}

#[test]
fn a_key_that_goes_before_its_tokens_have_ended_takes_them_along() {
    let token = sign(&claims("ada", Role::Viewer));
    let vouched = Verifier::new(&view()).verify(&token, at(NOW + 1)).unwrap();
    let gone = Verifier::new(&AccessView { keys: Vec::new(), ..view() });
    for (verifier, second, revoked) in [
        (&Verifier::new(&view()), NOW + 1, false),
        (&gone, NOW + 1, true),
        (&gone, NOW + 599, true),
        // It went in its time: whoever is still here is kept while control is away, and has time to renew.
        (&gone, NOW + 600, false),
    ] {
        assert_eq!(verifier.is_revoked(&vouched, at(second)), revoked, "{second}");
    }
}
