//! What is agreed on, and what a compressed message may and may not be.
//! Method: the examples of RFC 7692, a table of offers, and streams made by hand, cut off, endless or spoilt.
//! `tests/protocol_deflate.rs` has the properties and a second implementation.

use super::*;
use crate::protocol::{
    decoder::{DecodeError, Deflated, Message},
    frame::OpCode,
};

const BASE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
const BOUND: usize = 64 << 10;

fn inflate(data: &[u8]) -> Result<Vec<u8>, DecodeError> {
    Inflater::default().inflate(data, BOUND).map(Vec::from)
}

/// A compressed frame's payload.
fn data_of(frame: &[u8]) -> &[u8] {
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    }
}

fn compress(payload: &[u8]) -> Vec<u8> {
    let window = Window::of(negotiate("permessage-deflate").unwrap().deflate, payload.len()).unwrap();
    data_of(&Deflater::new(3).frame(OpCode::Text, payload, window).unwrap()).to_vec()
}

#[test]
fn the_first_offer_that_can_be_met_is_accepted() {
    for (header, window, extra) in [
        ("permessage-deflate", 15, ""),
        ("  permessage-deflate\t", 15, ""),
        (", ,permessage-deflate,", 15, ""),
        ("permessage-deflate; client_max_window_bits", 15, ""),
        ("permessage-deflate;server_no_context_takeover;client_no_context_takeover", 15, ""),
        ("permessage-deflate; client_max_window_bits=8", 15, "; client_max_window_bits=8"),
        ("permessage-deflate; server_max_window_bits=8", 8, "; server_max_window_bits=8"),
        ("permessage-deflate; server_max_window_bits=15", 15, "; server_max_window_bits=15"),
        ("permessage-deflate; server_max_window_bits=\"12\"", 12, "; server_max_window_bits=12"),
        ("permessage-deflate; server_max_window_bits=\"1\\2\"", 12, "; server_max_window_bits=12"),
        (
            "permessage-deflate ; client_max_window_bits = 12 ; server_max_window_bits\t=\t9",
            9,
            "; server_max_window_bits=9; client_max_window_bits=12",
        ),
        ("x-webkit-deflate-frame, permessage-deflate", 15, ""),
        ("x; a=\"b\"; c, permessage-deflate", 15, ""),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", 10, "; server_max_window_bits=10"),
        ("permessage-deflate; unheard_of, permessage-deflate; client_max_window_bits", 15, ""),
        (
            "permessage-deflate; server_max_window_bits=16, permessage-deflate; server_max_window_bits=11",
            11,
            "; server_max_window_bits=11",
        ),
    ] {
        let agreement = negotiate(header).unwrap_or_else(|| panic!("{header:?} was declined"));
        assert_eq!(agreement.deflate.window_bits(), window, "{header:?}");
        assert_eq!(agreement.answer, format!("{BASE}{extra}"), "{header:?}");
    }
}

#[test]
fn an_offer_that_is_invalid_is_declined() {
    for params in [
        "unheard_of",
        "server_no_context_takeover=1",
        "client_no_context_takeover=true",
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=16",
        "server_max_window_bits=08",
        "server_max_window_bits=+9",
        "server_max_window_bits=9.0",
        "server_max_window_bits=0x9",
        "server_max_window_bits=264",
        "server_max_window_bits=99999999999999999999",
        "server_max_window_bits=9; server_max_window_bits=9",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=010",
        "client_max_window_bits; client_max_window_bits",
        "client_max_window_bits; client_max_window_bits=9",
        "Server_Max_Window_Bits=9",
    ] {
        assert_eq!(negotiate(&format!("permessage-deflate; {params}")), None, "{params:?}");
        let later = negotiate(&format!("permessage-deflate; {params}, permessage-deflate"));
        assert_eq!(later.map(|agreement| agreement.answer).as_deref(), Some(BASE), "{params:?}");
    }
}

#[test]
fn a_header_that_is_no_list_of_extensions_offers_nothing() {
    for header in [
        "",
        " ",
        ",",
        "permessage-deflate;",
        "permessage-deflate; ;",
        "permessage-deflate; =9",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; server_max_window_bits=\"9",
        "permessage-deflate; server_max_window_bits=\"\"",
        "permessage-deflate; server_max_window_bits=\" 9\"",
        "permessage-deflate; server_max_window_bits=\"9\\",
        "permessage-deflate; server_max_window_bits=9 9",
        "permessage-deflate permessage-deflate",
        "permessage-deflate, ;",
        "permessage-deflate, a/b",
        "permessage-deflates",
        "Permessage-Deflate",
        "\"permessage-deflate\"",
    ] {
        assert_eq!(negotiate(header), None, "{header:?}");
    }
}

#[test]
fn the_examples_of_the_rfc_are_read() {
    for data in [
        // Section 7.2.3.1: one block.
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        // Section 7.2.3.3: a block without compression.
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        // Section 7.2.3.4: a last block, and an empty one behind it.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        // Section 7.2.3.5: two blocks.
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        assert_eq!(inflate(data).as_deref(), Ok(&b"Hello"[..]), "{data:x?}");
    }
    // Section 7.2.3.6: an empty message.
    assert_eq!(inflate(&[0x00]).as_deref(), Ok(&b""[..]));
    // Section 7.2.3.2: the second message refers to the first, which we have forbidden.
    assert_eq!(inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00]), Err(DecodeError::Corrupt));
}

#[test]
fn forms_that_careless_senders_use_are_read() {
    assert_eq!(inflate(&[]).as_deref(), Ok(&b""[..]), "nothing at all for an empty message");
    assert_eq!(inflate(&[0x02, 0x00]).as_deref(), Ok(&b""[..]), "zlib's empty message");
    let ended = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(inflate(&ended).as_deref(), Ok(&b"Hello"[..]), "a last block with nothing behind it");
    assert_eq!(inflate(&[ended, ended].concat()).as_deref(), Ok(&b"HelloHello"[..]), "two streams");
    let with_tail = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00];
    assert_eq!(inflate(&with_tail).as_deref(), Ok(&b"Hello"[..]), "an empty block too much");
}

#[test]
fn a_message_that_is_cut_off_or_spoilt_is_corrupt() {
    let payload: Vec<u8> = (0..3000_u32).flat_map(|n| (n % 211).to_string().into_bytes()).collect();
    let data = compress(&payload);
    assert_eq!(inflate(&data).as_deref(), Ok(&payload[..]));
    for cut in 1..data.len() {
        assert_eq!(inflate(&data[..cut]), Err(DecodeError::Corrupt), "cut at {cut}");
    }
    for bad in [&[0x06][..], &[0xff; 8], &[0x00, 0x05, 0x00, 0xfa, 0xfe], &[0x05, 0x80, 0xff, 0xff], b"plain text"] {
        assert_eq!(inflate(bad), Err(DecodeError::Corrupt), "{bad:x?}");
    }
    assert_eq!(inflate(&[&data[..], b"x"].concat()), Err(DecodeError::Corrupt), "something behind it");
}

#[test]
fn a_message_at_the_bound_is_read_and_one_above_it_is_refused() {
    let mut inflater = Inflater::default();
    for bound in [0, 1, 4095, 4096, 4097, BOUND] {
        let at = [&vec![b'x'; bound][..], b"y"].concat();
        assert_eq!(inflater.inflate(&compress_any(&at[..bound]), bound).map(<[u8]>::len), Ok(bound));
        assert_eq!(inflater.inflate(&compress_any(&at), bound), Err(DecodeError::TooBig), "{bound}");
    }
}

/// With zlib directly, whether it gets smaller or not.
fn compress_any(payload: &[u8]) -> Vec<u8> {
    let mut engine = flate2::Compress::new(flate2::Compression::new(6), false);
    let mut out = Vec::with_capacity(payload.len() + 64);
    engine.compress_vec(payload, &mut out, flate2::FlushCompress::Sync).unwrap();
    out.truncate(out.len() - TAIL.len());
    out
}

#[test]
fn a_bomb_costs_no_more_than_the_bound() {
    let bomb = compress_any(&vec![0; 64 << 20]);
    assert!(bomb.len() <= BOUND, "{} bytes pass the decoder", bomb.len());
    let mut inflater = Inflater::default();
    assert_eq!(inflater.inflate(&bomb, BOUND), Err(DecodeError::TooBig));
    assert_eq!(inflater.kept_bytes(), BOUND + 1);
    assert_eq!(inflater.inflate(&compress(&[b'a'; 100]), BOUND), Ok(&[b'a'; 100][..]), "the next message");
}

#[test]
fn memory_that_a_large_message_took_is_given_back() {
    let mut inflater = Inflater::default();
    let large = compress_any(&vec![b'x'; 1 << 20]);
    assert_eq!(inflater.inflate(&large, 1 << 20).map(<[u8]>::len), Ok(1 << 20));
    inflater.inflate(&[0x00], BOUND).unwrap();
    assert!(inflater.kept_bytes() <= BOUND);
}

#[test]
fn text_is_checked_when_it_is_inflated() {
    let mut inflater = Inflater::default();
    let mut open =
        |is_text, payload: &[u8]| match inflater.open(Deflated { is_text, data: &compress_any(payload) }, BOUND) {
            Ok(Message::Text(text)) => Ok((true, text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => Ok((false, bytes.to_vec())),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error),
        };
    assert_eq!(open(true, "né".as_bytes()), Ok((true, "né".into())));
    assert_eq!(open(true, b"n\xc3"), Err(DecodeError::Utf8));
    assert_eq!(open(false, b"n\xc3"), Ok((false, b"n\xc3".to_vec())));
}

#[test]
fn what_does_not_get_smaller_stays_plain() {
    let deflate = negotiate("permessage-deflate").unwrap().deflate;
    let mut deflater = Deflater::new(9);
    let mut frame = |payload: &[u8]| deflater.frame(OpCode::Text, payload, Window::of(deflate, payload.len()).unwrap());
    assert_eq!(frame(b""), None);
    assert_eq!(frame(b"Hello"), None, "7 bytes compressed");
    assert_eq!(frame(&(0..=255).collect::<Vec<u8>>()), None);
    let compressed = frame(&[b'x'; 300]).unwrap();
    assert_eq!((compressed[0], usize::from(compressed[1])), (0xc1, compressed.len() - 2), "final, RSV1, text");
    assert_eq!(frame(b"Hello"), None, "nothing is left of the message before");
}

#[test]
fn a_message_that_fits_the_window_shares_its_frame_with_larger_windows() {
    let window = |bits, bytes| {
        let deflate = negotiate(&format!("permessage-deflate; server_max_window_bits={bits}")).unwrap().deflate;
        Window::of(deflate, bytes)
    };
    assert_eq!(window(12, 4096), window(15, 4096));
    assert_ne!(window(12, 4097), window(15, 4097));
    assert_eq!(window(8, 256), window(15, 256));
    assert_eq!(window(8, 257), None, "there is no compressor for it");
    assert_eq!(window(15, 1 << 20), window(15, 1));
}
