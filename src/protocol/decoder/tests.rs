//! What clients send is read as RFC 6455 says, however it is cut, and what breaks a rule is refused.
//! Method: frames built by hand; each stream read whole, byte by byte, and in every two and three pieces.

use super::*;

const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// On the first frame of a compressed message.
const RSV1: u8 = 0x40;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Deflated(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Message<'_>> for Owned {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Owned::Text(text.into()),
            Message::Binary(bytes) => Owned::Binary(bytes.into()),
            Message::Deflated(Deflated { is_text, data }) => Owned::Deflated(is_text, data.into()),
            Message::Ping(bytes) => Owned::Ping(bytes.into()),
            Message::Pong(bytes) => Owned::Pong(bytes.into()),
            Message::Close(close) => Owned::Close(close.map(|(code, reason)| (code, reason.into()))),
        }
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn text(text: &str) -> Vec<u8> {
    frame(FIN | TEXT, text.as_bytes())
}

fn decoder() -> Decoder {
    Decoder::new(1 << 17, 4)
}

/// Feeds one piece; adds what it held to `messages`.
fn feed(decoder: &mut Decoder, piece: &[u8], messages: &mut Vec<Owned>) -> Result<(), DecodeError> {
    let mut piece = piece.to_vec();
    let mut at = 0;
    loop {
        let (used, message) = decoder.feed(&mut piece[at..])?;
        at += used;
        match message {
            Some(message) => messages.push(message.into()),
            None => {
                assert_eq!(at, piece.len(), "without a message all is used up");
                return Ok(());
            }
        }
    }
}

fn read<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<Owned>, Result<(), DecodeError>) {
    read_by(decoder(), pieces)
}

fn read_by<'p>(
    mut decoder: Decoder,
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> (Vec<Owned>, Result<(), DecodeError>) {
    let mut messages = Vec::new();
    let result = pieces.into_iter().try_for_each(|piece| feed(&mut decoder, piece, &mut messages));
    (messages, result)
}

/// Reads a stream whole and in every one of its cuts; all must agree.
fn read_cut(stream: &[u8]) -> (Vec<Owned>, Result<(), DecodeError>) {
    read_cut_by(decoder, stream)
}

fn read_cut_by(decoder: fn() -> Decoder, stream: &[u8]) -> (Vec<Owned>, Result<(), DecodeError>) {
    let whole = read_by(decoder(), [stream]);
    assert_eq!(read_by(decoder(), stream.chunks(1)), whole, "byte by byte");
    for first in 0..=stream.len() {
        assert_eq!(read_by(decoder(), [&stream[..first], &stream[first..]]), whole, "cut at {first}");
        for second in first..stream.len().min(first + 40) {
            let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(read_by(decoder(), pieces), whole, "cut at {first} and {second}");
        }
    }
    whole
}

fn refusal(stream: &[u8]) -> DecodeError {
    read_cut(stream).1.expect_err("a refusal")
}

#[test]
fn the_example_of_the_rfc_is_read() {
    let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read_cut(&hello), (vec![Owned::Text("Hello".into())], Ok(())));
}

#[test]
fn every_cut_of_a_stream_gives_the_same_messages() {
    let stream = [
        text("one → é 𝄞"),
        frame(TEXT, "two".as_bytes()),
        frame(FIN | PING, b"in between"),
        frame(0, b""),
        frame(FIN | PONG, b""),
        frame(FIN, "é".as_bytes()),
        frame(FIN | BINARY, &[0xff, 0]),
        text(""),
        frame(BINARY, &[1]),
        frame(FIN, &[2, 3]),
        frame(FIN | CLOSE, &[&1001_u16.to_be_bytes()[..], b"bye"].concat()),
    ];
    let (messages, result) = read_cut(&stream.concat());
    let expected = [
        Owned::Text("one → é 𝄞".into()),
        Owned::Ping(b"in between".into()),
        Owned::Pong(b"".into()),
        Owned::Text("twoé".into()),
        Owned::Binary(vec![0xff, 0]),
        Owned::Text(String::new()),
        Owned::Binary(vec![1, 2, 3]),
        Owned::Close(Some((1001, "bye".into()))),
    ];
    assert_eq!((messages, result), (expected.into(), Ok(())));
}

#[test]
fn a_character_may_be_cut_anywhere_by_fragments() {
    let whole = "é→𝄞";
    for first in 0..=whole.len() {
        for second in first..=whole.len() {
            let bytes = whole.as_bytes();
            let stream = [frame(TEXT, &bytes[..first]), frame(0, &bytes[first..second]), frame(FIN, &bytes[second..])];
            assert_eq!(read(stream.concat().chunks(1)), (vec![Owned::Text(whole.into())], Ok(())), "{first} {second}");
        }
    }
}

#[test]
fn every_length_around_the_forms_of_a_header_is_read() {
    for len in [0, 1, 7, 8, 9, 124, 125, 126, 127, 65_535, 65_536, 65_537] {
        let payload: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let stream = frame(FIN | BINARY, &payload);
        let expected = (vec![Owned::Binary(payload)], Ok(()));
        assert_eq!(read([&stream[..]]), expected, "{len}");
        assert_eq!(read(stream.chunks(1000)), expected, "{len}");
        assert_eq!(read(stream.chunks(13)), expected, "{len}");
    }
}

#[test]
fn what_breaks_a_rule_is_refused_with_1002() {
    let mut unmasked = text("a");
    unmasked[1] &= 0x7f;
    let close = |payload: &[u8]| frame(FIN | CLOSE, payload);
    let length = |form: u8, len: u64| {
        let bytes = len.to_be_bytes();
        let len = if form == 126 { &bytes[6..] } else { &bytes[..] };
        [&[FIN | BINARY, 0x80 | form], len, &MASK].concat()
    };
    let bad = [
        unmasked,
        frame(FIN | TEXT | 0x40, b"a"),
        frame(FIN | TEXT | 0x20, b"a"),
        frame(FIN | TEXT | 0x10, b"a"),
        frame(FIN | PING | 0x40, b"a"),
        frame(FIN | 0x3, b""),
        frame(FIN | 0x7, b""),
        frame(FIN | 0xb, b""),
        frame(FIN | 0xf, b""),
        frame(FIN, b"continues nothing"),
        frame(0, b"continues nothing"),
        [frame(TEXT, b"a"), frame(TEXT, b"b")].concat(),
        [frame(TEXT, b"a"), text("b")].concat(),
        [text("a"), frame(FIN, b"b")].concat(),
        frame(PING, b"fragmented"),
        frame(CLOSE, b""),
        frame(FIN | PING, &[0; 126]),
        length(126, 125),
        length(127, 65_535),
        length(127, 1 << 63),
        length(127, u64::MAX),
        close(&[3]),
        close(&999_u16.to_be_bytes()),
        close(&1004_u16.to_be_bytes()),
        close(&1005_u16.to_be_bytes()),
        close(&1006_u16.to_be_bytes()),
        close(&1015_u16.to_be_bytes()),
        close(&2999_u16.to_be_bytes()),
        close(&5000_u16.to_be_bytes()),
    ];
    for stream in bad {
        let error = refusal(&stream[..stream.len().min(64)]);
        assert_eq!(error.close_code(), close_code::PROTOCOL, "{stream:02x?}");
    }
}

#[test]
fn close_codes_that_may_be_sent_are_passed_on() {
    for code in [1000_u16, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4008, 4999] {
        let stream = frame(FIN | CLOSE, &code.to_be_bytes());
        assert_eq!(read([&stream[..]]).0, [Owned::Close(Some((code, String::new())))]);
    }
    assert_eq!(read([&frame(FIN | CLOSE, b"")[..]]).0, [Owned::Close(None)]);
}

#[test]
fn text_that_is_no_utf8_is_refused_at_its_first_bad_byte() {
    // The last byte of each is the first that nothing behind it can mend.
    for bad in [
        &b"\x80"[..],
        b"ab\xff",
        b"\xc3\x28",
        b"\xe2\x82\x28",
        b"\xed\xa0",
        b"\xf4\x90",
        b"\xc0",
        b"\xf5",
        b"a\xe0\x80",
    ] {
        let mut payload = bad.to_vec();
        payload.extend_from_slice(b"and more that never comes");
        let stream = frame(TEXT, &payload);
        let header_bytes = stream.len() - payload.len();
        let mut decoder = decoder();
        let mut messages = Vec::new();
        for (at, byte) in stream.iter().enumerate() {
            let result = feed(&mut decoder, &[*byte], &mut messages);
            if at + 1 < header_bytes + bad.len() {
                assert_eq!(result, Ok(()), "{bad:02x?} at {at}");
            } else {
                assert_eq!(result, Err(DecodeError::Utf8), "{bad:02x?} at {at}");
                break;
            }
        }
    }
    assert_eq!(refusal(&frame(FIN | TEXT, b"cut \xe2\x82")), DecodeError::Utf8);
    assert_eq!(refusal(&[frame(TEXT, b"\xe2"), frame(FIN, b"\x82")].concat()), DecodeError::Utf8);
    assert_eq!(refusal(&frame(FIN | CLOSE, b"\x03\xe8\xff")), DecodeError::Utf8);
    assert_eq!(DecodeError::Utf8.close_code(), 1007);
}

#[test]
fn the_header_alone_refuses_a_message_over_its_bound() {
    let mut decoder = Decoder::new(100, 4);
    let at_bound = frame(FIN | BINARY, &[0; 100]);
    assert_eq!(feed(&mut decoder, &at_bound, &mut Vec::new()), Ok(()));
    let over = frame(FIN | BINARY, &[0; 101]);
    assert_eq!(feed(&mut decoder, &over[..6], &mut Vec::new()), Err(DecodeError::TooBig));
    assert_eq!(DecodeError::TooBig.close_code(), 1009);

    let mut decoder = Decoder::new(100, 4);
    let fragments = [frame(BINARY, &[0; 60]), frame(0, &[0; 40]), frame(FIN, &[0; 1])[..6].to_vec()];
    assert_eq!(feed(&mut decoder, &fragments.concat(), &mut Vec::new()), Err(DecodeError::TooBig));

    let mut decoder = Decoder::new(100, 4);
    let huge = [&[FIN | BINARY, 0xff][..], &(u64::MAX >> 1).to_be_bytes(), &MASK].concat();
    assert_eq!(feed(&mut decoder, &huge, &mut Vec::new()), Err(DecodeError::TooBig));
}

#[test]
fn fragments_are_counted_empty_ones_too() {
    let fragments = |count: usize| {
        let middle = vec![frame(0, b""); count - 2];
        [frame(TEXT, b""), middle.concat(), frame(FIN, b"")].concat()
    };
    assert_eq!(read_cut(&fragments(4)).1, Ok(()));
    assert_eq!(refusal(&fragments(5)), DecodeError::TooManyFragments);
    let with_pings = [frame(TEXT, b""), vec![frame(FIN | PING, b""); 9].concat(), frame(FIN, b"")].concat();
    assert_eq!(read([&with_pings[..]]).0.len(), 10, "control frames are no fragments");
}

#[test]
fn what_is_kept_grows_with_what_came_and_not_with_what_was_said() {
    let mut decoder = decoder();
    let stream = frame(FIN | BINARY, &[0; 100_000]);
    feed(&mut decoder, &stream[..24], &mut Vec::new()).unwrap();
    let assembly = decoder.assembly.as_ref().unwrap();
    assert!(assembly.kept_bytes() <= 64, "{} bytes are kept for 10", assembly.kept_bytes());
}

#[test]
fn an_idle_connection_keeps_nothing() {
    let mut decoder = decoder();
    let stream = [frame(TEXT, b"a"), frame(FIN | PING, b"b"), frame(FIN, b"c")].concat();
    for (at, byte) in stream.iter().enumerate() {
        feed(&mut decoder, &[*byte], &mut Vec::new()).unwrap();
        assert_eq!(decoder.mid_message(), at + 1 < stream.len(), "{at}");
    }
    assert!(decoder.assembly.is_none());
    feed(&mut decoder, &text("whole"), &mut Vec::new()).unwrap();
    assert!(decoder.assembly.is_none(), "a whole message is never kept");
}

#[test]
fn behind_a_close_or_an_error_nothing_is_read() {
    let mut decoder = decoder();
    let mut messages = Vec::new();
    let stream = [frame(FIN | CLOSE, b""), text("too late"), frame(0x7f, b"")].concat();
    assert_eq!(feed(&mut decoder, &stream, &mut messages), Ok(()));
    assert_eq!((messages.len(), decoder.mid_message()), (1, false));

    let mut decoder = Decoder::new(10, 4);
    assert!(feed(&mut decoder, &frame(FIN | 0x7, b""), &mut messages).is_err());
    assert_eq!(feed(&mut decoder, &text("too late"), &mut messages), Ok(()));
    assert_eq!(messages.len(), 1);
}

fn deflating() -> Decoder {
    decoder().with_deflate(true)
}

#[test]
fn compressed_messages_are_handed_out_as_they_came_where_that_is_agreed() {
    let stream = [
        frame(FIN | RSV1 | TEXT, b"\xff\xfe"),
        text("plain"),
        frame(RSV1 | BINARY, b"\x01"),
        frame(FIN | PING, b"in between"),
        frame(0, b""),
        frame(FIN, b"\x02\x03"),
        frame(RSV1 | TEXT, b"\xc3"),
        frame(FIN, b"\x28"),
        frame(TEXT, "é".as_bytes()),
        frame(FIN, b""),
        frame(FIN | RSV1 | BINARY, b""),
    ];
    let (messages, result) = read_cut_by(deflating, &stream.concat());
    let expected = [
        Owned::Deflated(true, b"\xff\xfe".into()),
        Owned::Text("plain".into()),
        Owned::Ping(b"in between".into()),
        Owned::Deflated(false, vec![1, 2, 3]),
        Owned::Deflated(true, b"\xc3\x28".into()),
        Owned::Text("é".into()),
        Owned::Deflated(false, Vec::new()),
    ];
    assert_eq!((messages, result), (expected.into(), Ok(())));
}

#[test]
fn the_bit_of_compressed_messages_stands_nowhere_else() {
    let bad = [
        frame(FIN | RSV1 | PING, b"a"),
        frame(FIN | RSV1 | PONG, b"a"),
        frame(FIN | RSV1 | CLOSE, &1000_u16.to_be_bytes()),
        frame(FIN | RSV1, b"continues nothing"),
        frame(FIN | RSV1 | 0x20 | TEXT, b"a"),
        frame(FIN | RSV1 | 0x10 | TEXT, b"a"),
        [frame(RSV1 | TEXT, b"a"), frame(FIN | RSV1, b"b")].concat(),
        [frame(TEXT, b"a"), frame(FIN | RSV1, b"b")].concat(),
        [frame(RSV1 | TEXT, b"a"), frame(FIN | RSV1 | TEXT, b"b")].concat(),
        [frame(RSV1 | TEXT, b"a"), frame(FIN | RSV1 | PING, b"b")].concat(),
    ];
    for stream in bad {
        let error = read_cut_by(deflating, &stream).1.expect_err("a refusal");
        assert_eq!(error.close_code(), close_code::PROTOCOL, "{stream:02x?}");
    }
    for first in [FIN | RSV1 | TEXT, RSV1 | TEXT, FIN | RSV1 | BINARY] {
        assert_eq!(refusal(&frame(first, b"a")).close_code(), close_code::PROTOCOL, "not agreed on");
    }
}

#[test]
fn the_bounds_hold_for_compressed_messages_too() {
    let read = |stream: Vec<u8>| read_by(Decoder::new(100, 4).with_deflate(true), [&stream[..]]).1;
    assert_eq!(read(frame(FIN | RSV1 | TEXT, &[0; 100])), Ok(()));
    assert_eq!(read(frame(FIN | RSV1 | TEXT, &[0; 101])[..6].to_vec()), Err(DecodeError::TooBig));
    assert_eq!(read([frame(RSV1 | TEXT, &[0; 60]), frame(FIN, &[0; 41])].concat()), Err(DecodeError::TooBig));
    let fragments = [frame(RSV1 | TEXT, b"a"), vec![frame(0, b"a"); 4].concat()];
    assert_eq!(read(fragments.concat()), Err(DecodeError::TooManyFragments));
    assert_eq!(DecodeError::Corrupt.close_code(), 1007);
}

#[test]
fn payloads_do_not_show_in_debug() {
    let mut stream = [text("secret"), frame(TEXT, b"secret")].concat();
    let mut decoder = decoder();
    let (used, message) = decoder.feed(&mut stream).unwrap();
    assert_eq!(format!("{:?}", message.unwrap()), "Text(6 bytes)");
    decoder.feed(&mut stream[used..]).unwrap();
    assert!(!format!("{decoder:?}").contains("115"), "{decoder:?}");
}
