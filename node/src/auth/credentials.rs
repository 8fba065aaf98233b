//! What a request brings along to show who asks: one carrier is chosen, and the others are not looked at.
//! Pure. Whether it is good is the gate's business.
//!
//! A carrier that the client chose for this request comes before one that its browser adds by itself. One
//! that is there and cannot be read is refused, not passed over for the next.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::path::{BEARER_SUBPROTOCOL, SESSION_COOKIE};
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, ORIGIN};
use http::uri::Authority;

use super::Denial;
use crate::config::{Origin, Origins};

/// What was found.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Found {
    None,
    /// Something that cannot be taken, whatever it holds.
    Refused(Denial),
    /// A token: the static one or an access token.
    Token(String),
    /// A ticket of this node.
    Ticket(String),
}

/// Never what it holds.
impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Refused(denial) => write!(f, "Refused({denial:?})"),
            Self::Token(_) => f.write_str("Token(***)"),
            Self::Ticket(_) => f.write_str("Ticket(***)"),
        }
    }
}

/// What a socket's handshake brings besides its headers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Handshake<'a> {
    /// The subprotocols that it offers.
    pub(crate) protocols: &'a [String],
    /// `ticket` of the query.
    pub(crate) ticket: Option<&'a str>,
    /// `access_token` of the query.
    pub(crate) access_token: Option<&'a str>,
    /// Whether that may stand there.
    pub(crate) query_token_allowed: bool,
}

/// Which credential a handshake brings.
pub(crate) fn of_handshake(headers: &HeaderMap, origins: &Origins, handshake: Handshake<'_>) -> Found {
    let chosen = [of_header(headers), of_protocols(handshake.protocols), of_query(handshake)];
    let found = chosen.into_iter().find(|found| *found != Found::None);
    // A handshake changes nothing, but a page of anybody's can begin one, and read what comes.
    found.unwrap_or_else(|| of_cookie(headers, origins, OriginRule::Needed))
}

/// Which credential a request of an HTTP route brings.
pub(crate) fn of_request(headers: &HeaderMap, origins: &Origins, changes: bool) -> Found {
    match of_header(headers) {
        Found::None => {
            let rule = if changes { OriginRule::Needed } else { OriginRule::IfThere };
            of_cookie(headers, origins, rule)
        }
        found => found,
    }
}

/// `Authorization: Bearer`.
pub(crate) fn of_header(headers: &HeaderMap) -> Found {
    let Some(value) = only(headers, AUTHORIZATION) else { return Found::None };
    let token = value.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    token.map_or(Found::Refused(Denial::Invalid), Found::Token)
}

/// Whether a browser may use a cookie for this request: it sends the cookie whatever page it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OriginRule {
    /// The page's origin must be named, and be one of those that are listed.
    Needed,
    /// The same, but a browser does not name the origin of a page that only asks its own node.
    IfThere,
}

/// Whether a request with a cookie comes from a page that may use it.
pub(crate) fn is_from_listed_page(headers: &HeaderMap, origins: &Origins) -> bool {
    only(headers, ORIGIN).flatten().is_some_and(|origin| origins.lists(origin))
}

/// Whether a request that changes something may come from where it does, on a node that asks for no credential: from
/// no page at all, from one of this node, or from one that somebody allowed. A page of anybody's can send it, also
/// as a form, which no browser asks about before.
pub(crate) fn may_change_unasked(headers: &HeaderMap, origins: &Origins) -> bool {
    match only(headers, ORIGIN) {
        None => true,
        Some(Some(origin)) => is_own(headers, origin) || (origins.configured() && origins.allows(origin)),
        Some(None) => false,
    }
}

/// Whether a page is one of this node: it was reached where the request was. A name does not count, because
/// whoever owns one can let it lead here; `localhost` and addresses are nobody's to give away.
fn is_own(headers: &HeaderMap, origin: &str) -> bool {
    let Some(host) = only(headers, HOST).flatten() else { return false };
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_fixed = name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok();
    let page = origin.parse::<Origin>();
    let own = ["http", "https"].map(|scheme| format!("{scheme}://{host}").parse());
    is_fixed && page.is_ok() && own.contains(&page)
}

/// The value of a cookie; an error when it stands twice, because readers differ in which of the two it is.
pub(crate) fn cookie(headers: &HeaderMap, name: &str) -> Result<Option<String>, Denial> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned());
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(Denial::Invalid),
    }
}

fn of_cookie(headers: &HeaderMap, origins: &Origins, rule: OriginRule) -> Found {
    let token = match cookie(headers, SESSION_COOKIE) {
        Ok(None) => return Found::None,
        Ok(Some(token)) => token,
        Err(denial) => return Found::Refused(denial),
    };
    let is_silent = rule == OriginRule::IfThere && !headers.contains_key(ORIGIN);
    if is_silent || is_from_listed_page(headers, origins) {
        Found::Token(token)
    } else {
        Found::Refused(Denial::Origin)
    }
}

fn of_protocols(protocols: &[String]) -> Found {
    let mut offered = protocols.iter().filter_map(|protocol| protocol.strip_prefix(BEARER_SUBPROTOCOL));
    let token = match (offered.next(), offered.next()) {
        (None, _) => return Found::None,
        (Some(encoded), None) => {
            URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok())
        }
        (Some(_), Some(_)) => None,
    };
    token.map_or(Found::Refused(Denial::Invalid), Found::Token)
}

fn of_query(handshake: Handshake<'_>) -> Found {
    match (handshake.ticket, handshake.access_token) {
        (Some(ticket), _) => Found::Ticket(ticket.to_owned()),
        (None, Some(token)) if handshake.query_token_allowed => Found::Token(token.to_owned()),
        (None, Some(_)) => Found::Refused(Denial::QueryToken),
        (None, None) => Found::None,
    }
}

/// The one value of a header; nothing when it is not there, and nothing within when it stands twice or is no
/// text.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<Option<&str>> {
    let mut values = headers.get_all(name).into_iter();
    let first = values.next()?;
    Some(values.next().is_none().then(|| first.to_str().ok()).flatten())
}

/// Whether a page may connect at all: looked at before any credential. A request without the header is not a
/// browser's.
pub(crate) fn origin_allowed(headers: &HeaderMap, origins: &Origins) -> bool {
    match only(headers, ORIGIN) {
        None => true,
        Some(_) if !origins.configured() => true,
        // Two origins, or one that is no text, are nobody's.
        Some(origin) => origin.is_some_and(|origin| origins.allows(origin)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PAGE: &str = "https://ops.example";

    fn origins() -> Origins {
        PAGE.parse().unwrap()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn token(text: &str) -> Found {
        Found::Token(text.to_owned())
    }

    fn handshake(pairs: &[(&'static str, &str)], handshake: Handshake<'_>) -> Found {
        of_handshake(&headers(pairs), &origins(), handshake)
    }

    #[test]
    fn a_header_carries_one_bearer_token_and_anything_else_is_refused() {
        let of = |values: &[&str]| {
            let pairs: Vec<_> = values.iter().map(|value| ("authorization", *value)).collect();
            of_header(&headers(&pairs))
        };
        assert_eq!(of(&[]), Found::None);
        assert_eq!(of(&["Bearer abc"]), token("abc"));
        assert_eq!(of(&["bEARER  abc "]), token("abc"));
        for bad in [&["Bearer"][..], &["Basic abc"], &["abc"], &["Bearer a", "Bearer a"], &[""]] {
            assert_eq!(of(bad), Found::Refused(Denial::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn the_subprotocol_carries_it_for_pages() {
        let with = |protocols: &[&str]| {
            let protocols: Vec<String> = protocols.iter().map(ToString::to_string).collect();
            handshake(&[], Handshake { protocols: &protocols, ..Handshake::default() })
        };
        assert_eq!(with(&["hiveops.v1"]), Found::None);
        assert_eq!(with(&["hiveops.v1", "hiveops.bearer.YWJj"]), token("abc"));
        for bad in
            [&["hiveops.bearer.~~"][..], &["hiveops.bearer._w"], &["hiveops.bearer.YQ", "hiveops.bearer.YQ"]]
        {
            assert_eq!(with(bad), Found::Refused(Denial::Invalid), "{bad:?}");
        }
    }

    #[test]
    fn the_order_of_carriers_is_fixed_and_a_broken_one_is_not_passed_over() {
        let protocols = ["hiveops.bearer.Yg".to_owned()];
        let all = Handshake {
            protocols: &protocols,
            ticket: Some("t"),
            access_token: Some("q"),
            query_token_allowed: true,
        };
        let browser = [("origin", PAGE), ("cookie", "hiveops_session=c")];
        let with = |own: &[(&'static str, &str)], rest| handshake(&[own, &browser].concat(), rest);
        assert_eq!(with(&[("authorization", "Bearer h")], all), token("h"));
        assert_eq!(with(&[("authorization", "Basic h")], all), Found::Refused(Denial::Invalid));
        assert_eq!(with(&[], all), token("b"));
        let no_protocols = Handshake { protocols: &[], ..all };
        assert_eq!(with(&[], no_protocols), Found::Ticket("t".to_owned()));
        assert_eq!(with(&[], Handshake { ticket: None, ..no_protocols }), token("q"));
        assert_eq!(with(&[], Handshake::default()), token("c"));
    }

    #[test]
    fn a_token_in_the_query_needs_the_flag() {
        let with = |query_token_allowed| {
            handshake(&[], Handshake { access_token: Some("q"), query_token_allowed, ..Handshake::default() })
        };
        assert_eq!((with(true), with(false)), (token("q"), Found::Refused(Denial::QueryToken)));
    }

    #[test]
    fn a_cookie_counts_only_with_a_listed_origin() {
        let cookie = ("cookie", "a=1; hiveops_session=abc; b=2");
        let ask = |origin: &[&str], origins: &Origins, changes: Option<bool>| {
            let pairs: Vec<_> = origin.iter().map(|origin| ("origin", *origin)).chain([cookie]).collect();
            let headers = headers(&pairs);
            match changes {
                None => of_handshake(&headers, origins, Handshake::default()),
                Some(changes) => of_request(&headers, origins, changes),
            }
        };
        let listed = origins();
        for changes in [None, Some(true), Some(false)] {
            assert_eq!(ask(&[PAGE], &listed, changes), token("abc"), "{changes:?}");
            for bad in [
                &["https://evil.example"][..],
                &["https://ops.example.evil.example"],
                &["https://ops.example."],
                &["http://ops.example"],
                &["https://ops.example:8443"],
                &["null"],
                &[PAGE, PAGE],
            ] {
                assert_eq!(ask(bad, &listed, changes), Found::Refused(Denial::Origin), "{bad:?} {changes:?}");
            }
            for open in [Origins::Unchecked, Origins::Any] {
                assert_eq!(ask(&[PAGE], &open, changes), Found::Refused(Denial::Origin), "{open:?}");
            }
        }
        // A page that reads from its own node names no origin; who changes something or opens a socket must.
        assert_eq!(ask(&[], &listed, Some(false)), token("abc"));
        assert_eq!(ask(&[], &listed, Some(true)), Found::Refused(Denial::Origin));
        assert_eq!(ask(&[], &listed, None), Found::Refused(Denial::Origin));
    }

    #[test]
    fn a_cookie_that_stands_twice_is_nobodys() {
        let twice = headers(&[("cookie", "hiveops_session=a"), ("cookie", "x=1; hiveops_session=b")]);
        assert_eq!(cookie(&twice, SESSION_COOKIE), Err(Denial::Invalid));
        assert_eq!(cookie(&twice, "x"), Ok(Some("1".to_owned())));
        assert_eq!(cookie(&headers(&[("cookie", "my_hiveops_session=a")]), SESSION_COOKIE), Ok(None));
    }

    #[test]
    fn what_changes_something_unasked_comes_from_no_page_or_from_one_that_may() {
        let ask = |host: &str, values: &[&str], origins: &Origins| {
            let pairs = values.iter().map(|value| ("origin", *value)).chain([("host", host)]);
            may_change_unasked(&headers(&pairs.collect::<Vec<_>>()), origins)
        };
        let here = "127.0.0.1:8000";
        for (host, own) in [
            (here, "http://127.0.0.1:8000"),
            ("localhost:8000", "http://LOCALHOST:8000"),
            ("[::1]:8000", "http://[::1]:8000"),
            ("10.0.0.7", "https://10.0.0.7"),
            ("10.0.0.7:80", "http://10.0.0.7"),
        ] {
            assert!(ask(host, &[own], &Origins::Unchecked), "{own}");
            assert!(ask(host, &[], &Origins::Unchecked));
        }
        for (host, foreign) in [
            (here, "https://evil.example"),
            (here, "http://127.0.0.1:5173"),
            (here, "http://localhost:8000"),
            (here, "null"),
            (here, ""),
            // A name that was made to lead here.
            ("evil.example:8000", "http://evil.example:8000"),
            ("localhost.evil.example", "http://localhost.evil.example"),
        ] {
            assert!(!ask(host, &[foreign], &Origins::Unchecked), "{foreign}");
            assert!(ask(host, &[foreign], &Origins::Any), "{foreign}");
        }
        assert!(!ask(here, &["http://127.0.0.1:8000", "http://127.0.0.1:8000"], &Origins::Any));
        let listed = origins();
        assert!(ask(here, &[PAGE], &listed) && ask(here, &["http://127.0.0.1:8000"], &listed));
        assert!(!ask(here, &["https://evil.example"], &listed));
    }

    #[test]
    fn the_table_of_origins() {
        let ask = |values: &[&str], origins: &Origins| {
            let pairs: Vec<_> = values.iter().map(|value| ("origin", *value)).collect();
            origin_allowed(&headers(&pairs), origins)
        };
        let listed = origins();
        for good in [&[][..], &[PAGE], &["https://OPS.example"], &["https://ops.example:443"]] {
            assert!(ask(good, &listed), "{good:?}");
        }
        for bad in [
            &["null"][..],
            &["https://ops.example.evil.example"],
            &["https://evilops.example"],
            &["https://ops.example:8443"],
            &["http://ops.example"],
            &["https://ops.example."],
            &["https://ops.example/"],
            &["https://user@ops.example"],
            &["https://ops.example, https://evil.example"],
            &[PAGE, "https://evil.example"],
            &[PAGE, PAGE],
            &[""],
        ] {
            assert!(!ask(bad, &listed), "{bad:?}");
        }
        assert!(ask(&["null"], &Origins::Unchecked) && ask(&["null"], &Origins::Any));
    }

    #[test]
    fn nothing_that_was_found_is_shown() {
        let shown = format!("{:?} {:?}", token("s3cret"), Found::Ticket("s3cret".to_owned()));
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
