//! The parser on single frames, on sequences of them, and on streams cut at any place.

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Parser, Pending};
use crate::ws::client::{
    BINARY, BINARY_BEGIN, CLOSE, CONTINUATION, LAST, PING, PONG, TEXT, TEXT_BEGIN, frame,
};
use crate::ws::drive::{Outcome, drive};
use crate::ws::{Caps, Incoming, Kind, ProtocolError};

const CAPS: Caps = Caps { soft: 1_000, hard: 4_000, deflate: false };
const MASK: [u8; 4] = [0xA1, 0x02, 0xF3, 0x44];
/// What the parser may hold beyond the soft cap: its own box and the part of a control frame.
const OVERHEAD: usize = size_of::<Pending>() + 256;

#[track_caller]
fn check(frames: &[Vec<u8>], incoming: &[Incoming<'static>]) {
    check_outcome(frames, incoming, None);
}

#[track_caller]
fn check_error(frames: &[Vec<u8>], error: ProtocolError) {
    check_outcome(frames, &[], Some(error));
}

#[track_caller]
fn check_protocol(frames: &[Vec<u8>], rule: &'static str) {
    check_error(frames, ProtocolError::Protocol(rule));
}

/// In one piece, byte by byte, and in two uneven ways.
#[track_caller]
fn check_outcome(frames: &[Vec<u8>], incoming: &[Incoming<'static>], error: Option<ProtocolError>) {
    let expected = Outcome { incoming: incoming.to_vec(), error };
    for piece_lens in [&[][..], &[1], &[3, 1, 7], &[130]] {
        let (outcome, held) = drive(&frames.concat(), piece_lens, &CAPS);
        assert_eq!(outcome, expected, "in pieces of {piece_lens:?}");
        assert!(held.max_bytes <= CAPS.soft + OVERHEAD, "{held:?}");
        assert_eq!(held.last_bytes, 0, "nothing is held at the end");
    }
}

fn text(text: &str) -> Incoming<'static> {
    Incoming::Text(Cow::Owned(text.to_owned()))
}

fn binary(bytes: &[u8]) -> Incoming<'static> {
    Incoming::Binary(Cow::Owned(bytes.to_vec()))
}

fn ping(bytes: &[u8]) -> Incoming<'static> {
    Incoming::Ping(Cow::Owned(bytes.to_vec()))
}

fn close(code: Option<u16>, reason: &'static str) -> Incoming<'static> {
    Incoming::Close { code, reason: Cow::Borrowed(reason) }
}

fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}

#[test]
fn the_example_of_the_rfc() {
    let hello = vec![0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    check(&[hello], &[text("Hello")]);
}

#[test]
fn an_idle_parser_is_one_pointer() {
    assert_eq!(size_of::<Parser>(), size_of::<usize>());
    assert_eq!(Parser::new().held_bytes(), 0);
}

#[test]
fn a_whole_frame_is_lent_out_where_it_lies_and_nothing_is_held() {
    let mut stream = [frame(TEXT, b"{}", MASK), frame(BINARY, b"\0", MASK), frame(PING, b"p", MASK)].concat();
    let mut input = stream.as_mut_slice();
    let mut parser = Parser::new();
    assert!(matches!(parser.next(&mut input, &CAPS), Ok(Some(Incoming::Text(Cow::Borrowed("{}"))))));
    assert!(matches!(parser.next(&mut input, &CAPS), Ok(Some(Incoming::Binary(Cow::Borrowed(b"\0"))))));
    assert!(matches!(parser.next(&mut input, &CAPS), Ok(Some(Incoming::Ping(Cow::Borrowed(b"p"))))));
    assert_eq!(parser.next(&mut input, &CAPS), Ok(None));
    assert_eq!(parser.held_bytes(), 0);
}

#[test]
fn what_is_held_grows_with_what_arrived_and_not_with_what_was_announced() {
    let stream = frame(TEXT, &[b'a'; 1_000], MASK);
    let (_, held) = drive(&stream[..20], &[], &CAPS);
    assert!(held.last_bytes < size_of::<Pending>() + 32, "{held:?}");
}

#[test]
fn control_frames_come_between_fragments() {
    check(
        &[
            frame(TEXT_BEGIN, "gr\u{fc}".as_bytes(), MASK),
            frame(PING, b"are you there", MASK),
            frame(CONTINUATION, b"", MASK),
            frame(PONG, b"", MASK),
            frame(LAST, "\u{df}e".as_bytes(), MASK),
            frame(BINARY_BEGIN, &[0xFF], MASK),
            frame(LAST, &[0xFE], MASK),
            frame(CLOSE, b"", MASK),
        ],
        &[
            ping(b"are you there"),
            Incoming::Pong,
            text("gr\u{fc}\u{df}e"),
            binary(&[0xFF, 0xFE]),
            close(None, ""),
        ],
    );
}

#[test]
fn a_message_may_be_empty() {
    check(
        &[frame(TEXT, b"", MASK), frame(TEXT_BEGIN, b"", MASK), frame(LAST, b"", MASK)],
        &[text(""), text("")],
    );
}

#[test]
fn a_character_may_be_cut_by_a_frame_but_not_by_the_message() {
    let [a, b, c] = *"\u{20ac}".as_bytes() else { panic!("three bytes") };
    check(&[frame(TEXT_BEGIN, &[a, b], MASK), frame(LAST, &[c], MASK)], &[text("\u{20ac}")]);
    check_error(&[frame(TEXT_BEGIN, &[a], MASK), frame(LAST, &[b], MASK)], ProtocolError::InvalidUtf8);
    check_error(&[frame(TEXT, &[a, b], MASK)], ProtocolError::InvalidUtf8);
}

#[test]
fn text_is_refused_at_the_first_byte_that_cannot_be_utf8() {
    for bad in [&b"\xFF"[..], b"\xC0", b"\xF5", b"\xE0\x80", b"\xED\xA0", b"\xF4\x90", b"\xE2\x82A"] {
        let payload = [b"key: ", bad, &[b'a'; 100]].concat();
        let stream = frame(TEXT_BEGIN, &payload, MASK);
        let certain = 6 + b"key: ".len() + bad.len();
        for piece_lens in [&[][..], &[1]] {
            let (before, _) = drive(&stream[..certain - 1], piece_lens, &CAPS);
            assert_eq!(before.error, None, "{bad:x?}");
            let (outcome, _) = drive(&stream[..certain], piece_lens, &CAPS);
            assert_eq!(outcome.error, Some(ProtocolError::InvalidUtf8), "{bad:x?}");
        }
    }
}

#[test]
fn broken_headers_are_refused_before_the_frame_is_whole() {
    for (bytes, rule) in [
        (&[0xC1][..], "reserved bit set"),
        (&[0xA1], "reserved bit set"),
        (&[0x91], "reserved bit set"),
        (&[0x83], "reserved opcode"),
        (&[0x8B], "reserved opcode"),
        (&[0x09], "fragmented control frame"),
        (&[0x08], "fragmented control frame"),
        (&[0x81, 0x05], "frame without mask"),
        (&[0x89, 0xFE], "control frame over 125 bytes"),
        (&[0x88, 0xFF], "control frame over 125 bytes"),
        (&[0x81, 0xFE, 0, 125], "length not in its shortest form"),
        (&[0x81, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], "length not in its shortest form"),
        (&[0x81, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], "length over 63 bits"),
    ] {
        check_protocol(&[bytes.to_vec()], rule);
    }
}

#[test]
fn messages_do_not_overlap() {
    check_protocol(&[frame(LAST, b"a", MASK)], "continuation of no message");
    check_protocol(&[frame(CONTINUATION, b"a", MASK)], "continuation of no message");
    check_protocol(&[frame(TEXT_BEGIN, b"a", MASK), frame(TEXT, b"b", MASK)], "message begun inside another");
    check_protocol(
        &[frame(BINARY_BEGIN, b"", MASK), frame(TEXT_BEGIN, b"", MASK)],
        "message begun inside another",
    );
}

#[test]
fn a_close_frame_carries_a_code_that_may_be_sent() {
    for code in [1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4408, 4999] {
        check(&[frame(CLOSE, &close_payload(code, b"done"), MASK)], &[close(Some(code), "done")]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check_protocol(&[frame(CLOSE, &close_payload(code, b""), MASK)], "close code that may not be sent");
    }
    check_protocol(&[frame(CLOSE, &[3], MASK)], "close frame of one byte");
    check_error(&[frame(CLOSE, &close_payload(1000, b"\xFF"), MASK)], ProtocolError::InvalidUtf8);
    check_error(&[frame(CLOSE, &close_payload(1000, b"\xE2\x82"), MASK)], ProtocolError::InvalidUtf8);
}

#[test]
fn the_soft_cap_itself_is_allowed_and_one_more_is_read_past() {
    let exact = "a".repeat(CAPS.soft);
    check(&[frame(TEXT, exact.as_bytes(), MASK)], &[text(&exact)]);
    let kind = Kind::Text;
    check(
        &[frame(TEXT, &[b'a'; 1_001], MASK), frame(TEXT, b"next", MASK)],
        &[Incoming::TooLarge { kind, bytes: 1_001 }, text("next")],
    );
    check(
        &[
            frame(TEXT_BEGIN, &[b'a'; 900], MASK),
            frame(CONTINUATION, &[0xFF; 900], MASK),
            frame(PING, b"", MASK),
            frame(LAST, &[0xFF; 900], MASK),
            frame(BINARY, &[0; 4_000], MASK),
        ],
        &[
            ping(b""),
            Incoming::TooLarge { kind, bytes: 2_700 },
            Incoming::TooLarge { kind: Kind::Binary, bytes: 4_000 },
        ],
    );
}

#[test]
fn the_hard_cap_ends_it_at_the_header() {
    let announced = |first: u8, len: u64| [&[first, 0xFF][..], &len.to_be_bytes(), &MASK].concat();
    check_error(&[announced(TEXT, 1 << 40)], ProtocolError::TooBig);
    check_error(&[announced(BINARY_BEGIN, i64::MAX as u64)], ProtocolError::TooBig);
    check_error(&[frame(TEXT, &[b'a'; 4_001], MASK)[..8].to_vec()], ProtocolError::TooBig);
    check_error(
        &[frame(TEXT_BEGIN, &[b'a'; 3_000], MASK), frame(LAST, &[b'a'; 1_001], MASK)[..8].to_vec()],
        ProtocolError::TooBig,
    );
    check_error(&[frame(BINARY_BEGIN, b"a", MASK), announced(LAST, i64::MAX as u64)], ProtocolError::TooBig);
}

#[test]
fn empty_fragments_do_not_go_on_for_ever() {
    let mut frames = vec![frame(TEXT_BEGIN, b"", MASK)];
    frames.resize(CAPS.hard + 1, frame(CONTINUATION, b"", MASK));
    check_error(&frames, ProtocolError::TooBig);
}

#[test]
fn an_empty_last_fragment_takes_nothing_from_the_caps() {
    let frames = [frame(TEXT_BEGIN, &[b'a'; 4_000], MASK), frame(LAST, b"", MASK)];
    check(&frames, &[Incoming::TooLarge { kind: Kind::Text, bytes: 4_000 }]);
    for piece_lens in [&[][..], &[1]] {
        let (outcome, _) =
            drive(&frame(TEXT, b"", MASK), piece_lens, &Caps { soft: 0, hard: 0, deflate: false });
        assert_eq!(outcome.incoming, [text("")]);
    }
}

/// A message or control frame, and the sizes of the fragments to send it in.
fn sent() -> impl Strategy<Value = (Incoming<'static>, Vec<usize>)> {
    let incoming = prop_oneof![
        4 => "\\PC{0,80}".prop_map(|sent| text(&sent)),
        2 => vec(any::<u8>(), 0..400).prop_map(|sent| binary(&sent)),
        1 => vec(any::<u8>(), 0..=125).prop_map(|sent| ping(&sent)),
        1 => Just(Incoming::Pong),
        1 => (1_001_u64..2_000).prop_map(|bytes| Incoming::TooLarge { kind: Kind::Text, bytes }),
    ];
    (incoming, vec(0_usize..300, 0..4))
}

fn encode((incoming, fragment_lens): &(Incoming<'static>, Vec<usize>), mask: [u8; 4]) -> Vec<u8> {
    let (opcode, payload) = match incoming {
        Incoming::Text(text) => (TEXT_BEGIN, text.as_bytes().to_vec()),
        Incoming::Binary(bytes) => (BINARY_BEGIN, bytes.to_vec()),
        Incoming::TooLarge { bytes, .. } => (TEXT_BEGIN, vec![b'a'; *bytes as usize]),
        Incoming::Ping(bytes) => return frame(PING, bytes, mask),
        Incoming::Pong => return frame(PONG, b"pong", mask),
        Incoming::Compressed { .. } | Incoming::Close { .. } => unreachable!("not generated"),
    };
    let (mut stream, mut rest, mut opcode) = (Vec::new(), payload.as_slice(), opcode);
    for &len in fragment_lens {
        let (fragment, tail) = rest.split_at(len.min(rest.len()));
        stream.extend(frame(opcode, fragment, mask));
        stream.extend(frame(PONG, b"", mask));
        (rest, opcode) = (tail, CONTINUATION);
    }
    stream.extend(frame(LAST | opcode, rest, mask));
    stream
}

#[test]
fn a_compressed_message_is_said_by_its_first_frame_and_kept_as_it_is() {
    const RSV1: u8 = 0x40;
    let caps = Caps { deflate: true, ..CAPS };
    let compressed =
        |payload: &[u8]| Incoming::Compressed { kind: Kind::Text, payload: Cow::Owned(payload.to_vec()) };
    // No UTF-8, which a compressed text need not be.
    let payload = [0xFF, 0x00, 0xC3];
    let whole = frame(TEXT | RSV1, &payload, MASK);
    let fragments = [
        frame(TEXT_BEGIN | RSV1, &payload[..1], MASK),
        frame(PING, b"", MASK),
        frame(LAST | CONTINUATION, &payload[1..], MASK),
    ]
    .concat();
    for pieces in [&[][..], &[1], &[3, 1]] {
        assert_eq!(drive(&whole, pieces, &caps).0.incoming, [compressed(&payload)]);
        assert_eq!(drive(&fragments, pieces, &caps).0.incoming, [ping(b""), compressed(&payload)]);
        assert_eq!(drive(&frame(TEXT, b"plain", MASK), pieces, &caps).0.incoming, [text("plain")]);
    }
    // What inflates cannot be smaller than it came by much, so the soft cap holds for it as well.
    let large = drive(&frame(TEXT | RSV1, &[0; 1_001], MASK), &[], &caps).0;
    assert_eq!(large.incoming, [Incoming::TooLarge { kind: Kind::Text, bytes: 1_001 }]);
    for wrong in [
        frame(PING | RSV1, b"", MASK),
        [frame(TEXT_BEGIN, b"a", MASK), frame(LAST | CONTINUATION | RSV1, b"b", MASK)].concat(),
        frame(TEXT | 0x20, b"", MASK),
    ] {
        assert!(matches!(drive(&wrong, &[], &caps).0.error, Some(ProtocolError::Protocol(_))));
    }
    assert_eq!(drive(&whole, &[], &CAPS).0.error, Some(ProtocolError::Protocol("reserved bit set")));
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in_wherever_the_stream_is_cut(
        sent in vec(sent(), 0..8),
        mask in any::<[u8; 4]>(),
        piece_lens in vec(0_usize..200, 0..8),
    ) {
        let stream: Vec<u8> = sent.iter().flat_map(|sent| encode(sent, mask)).collect();
        let (outcome, held) = drive(&stream, &piece_lens, &CAPS);
        prop_assert_eq!(outcome.error, None);
        let not_pong = |incoming: &Incoming<'_>| *incoming != Incoming::Pong;
        let got: Vec<_> = outcome.incoming.into_iter().filter(not_pong).collect();
        let expected: Vec<_> = sent.into_iter().map(|(incoming, _)| incoming).filter(not_pong).collect();
        prop_assert_eq!(got, expected);
        prop_assert!(held.max_bytes <= CAPS.soft + OVERHEAD);
        prop_assert_eq!(held.last_bytes, 0);
    }

    #[test]
    fn random_bytes_come_to_the_same_wherever_they_are_cut(
        stream in vec(prop_oneof![any::<u8>(), Just(0x81), Just(0x01), Just(0x80), Just(0)], 0..300),
        piece_lens in vec(0_usize..20, 0..8),
    ) {
        let caps = Caps { soft: 20, hard: 100, deflate: false };
        let (whole, _) = drive(&stream, &[], &caps);
        let (pieces, held) = drive(&stream, &piece_lens, &caps);
        prop_assert_eq!(whole, pieces);
        prop_assert!(held.max_bytes <= caps.soft + OVERHEAD);
    }
}
