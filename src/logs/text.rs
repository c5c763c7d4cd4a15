//! What may be shown of a value: cut, without control characters, and without what looks like a credential.
//!
//! Invariant: no text gets into a log line or a report but through here. Call sites keep secrets and payloads out by
//! not naming them; this is the net below, for texts that others wrote (an error's, a client's).

use std::fmt::{self, Write};

/// What stands for a credential.
const STARS: &str = "***";
/// What stands where a text was cut.
const CUT: char = '…';
/// Names whose values are credentials, in lower case.
const SENSITIVE: &[&str] = &[
    "sign",
    "token",
    "secret",
    "secrets",
    "password",
    "passwd",
    "pass",
    "jwt",
    "apikey",
    "api_key",
    "sentry_key",
    "payload",
    "data",
    "body",
];
/// Headers whose values are credentials, in lower case.
const HEADERS: &[&str] = &["authorization", "proxy-authorization", "cookie", "x-sentry-auth"];
/// Hexadecimal digits in a row that are taken for a sign: HMAC-SHA256 has 64.
const HEX_RUN: usize = 40;

/// Appends what may be shown of `text`: at most `bytes_max` bytes of it.
pub fn clean(text: &str, bytes_max: usize, out: &mut String) {
    let end = text.floor_char_boundary(bytes_max);
    let mut rest = &text[..end];
    let mut before = "";
    while !rest.is_empty() {
        let (separator, word) = split_word(rest);
        plain(separator, out);
        rest = &rest[separator.len() + word.len()..];
        let secret_bytes = credential(before, separator, word, rest);
        match secret_bytes {
            Some(more) => {
                out.push_str(STARS);
                rest = &rest[more..];
            }
            None => plain(word, out),
        }
        before = if word.is_empty() { before } else { word };
    }
    if end < text.len() {
        out.push(CUT);
    }
}

/// Appends what may be shown of the value that is called `name`.
pub fn clean_named(name: &str, text: &str, bytes_max: usize, out: &mut String) {
    let is_sensitive = SENSITIVE.iter().chain(HEADERS).any(|sensitive| name.eq_ignore_ascii_case(sensitive));
    if is_sensitive { out.push_str(STARS) } else { clean(text, bytes_max, out) }
}

/// A writer that takes a value's text up to a bound; the rest of a long one is not even formatted into memory.
pub struct Bounded<'a> {
    text: &'a mut String,
    bytes_max: usize,
}

impl<'a> Bounded<'a> {
    /// Collects into `text`, a little beyond `bytes_max`, so that it shows that something was cut.
    pub fn new(text: &'a mut String, bytes_max: usize) -> Self {
        text.clear();
        Self { text, bytes_max }
    }
}

impl Write for Bounded<'_> {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        let room = (self.bytes_max + CUT.len_utf8()).saturating_sub(self.text.len());
        self.text.push_str(&piece[..piece.floor_char_boundary(room)]);
        Ok(())
    }
}

/// What stands before the next word, and the word.
fn split_word(text: &str) -> (&str, &str) {
    let begin = text.find(is_word).unwrap_or(text.len());
    let end = text[begin..].find(|c| !is_word(c)).map_or(text.len(), |length| begin + length);
    (&text[..begin], &text[begin..end])
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// Whether `word` is a credential, by what it looks like or what stands before it; then how many bytes after it
/// belong to it.
fn credential(before: &str, separator: &str, word: &str, rest: &str) -> Option<usize> {
    if word.is_empty() {
        return None;
    }
    let to = |ends: fn(char) -> bool| rest.find(ends).unwrap_or(rest.len());
    let to_delimiter = || to(|c| c.is_whitespace() || "&,;\"')}]<>".contains(c));
    let named = |names: &[&str]| names.iter().any(|name| before.eq_ignore_ascii_case(name));
    if named(HEADERS) && separator.starts_with(':') {
        return Some(to(|c| matches!(c, '\n' | '\r' | '"' | '\'')));
    }
    // `x=1`, `"x":"1"`, `x: "1"`; not `x: 1`, which is how sentences go on.
    let assigned = separator.starts_with(['=', '"', '\'', '\\']) && separator.contains(['=', ':'])
        || separator == ":"
        || separator.starts_with(": \"");
    if assigned && named(SENSITIVE) || named(&["bearer"]) && separator == " " {
        return Some(to_delimiter());
    }
    if separator.trim_end_matches(':').ends_with("://") {
        let authority = rest.find(|c: char| c.is_whitespace() || "/?#\"'".contains(c)).unwrap_or(rest.len());
        return rest[..authority].rfind('@');
    }
    let is_hex = word.len() >= HEX_RUN && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_jwt = word.starts_with("eyJ") && word.bytes().filter(|byte| *byte == b'.').count() == 2;
    (is_hex || is_jwt).then_some(0)
}

/// Control characters as escapes, everything else as it is: a value cannot end its line or colour a terminal.
fn plain(text: &str, out: &mut String) {
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> String {
        let mut out = String::new();
        clean(text, 256, &mut out);
        out
    }

    #[test]
    fn what_looks_like_a_credential_becomes_stars() {
        let sign = "0123456789abcdef".repeat(4);
        for (text, shown) in [
            (format!("GET /ws/connect?pid=1&sign={sign}&uid=a"), "GET /ws/connect?pid=1&sign=***&uid=a".to_owned()),
            (format!("the sum {sign} is wrong"), "the sum *** is wrong".to_owned()),
            ("token=a$b%20c rest".to_owned(), "token=*** rest".to_owned()),
            (r#"{"secret":"hush","uid":"a"}"#.to_owned(), r#"{"secret":"***","uid":"a"}"#.to_owned()),
            (r#"{"payload":{"price":1}}"#.to_owned(), r#"{"payload":{"***":1}}"#.to_owned()),
            ("Authorization: Basic a.b+c/d= x\nHost: a".to_owned(), "Authorization: ***\\nHost: a".to_owned()),
            ("sent Bearer a.b+c/d= x".to_owned(), "sent Bearer *** x".to_owned()),
            (r#"Call { secret: "hush", n: 1 }"#.to_owned(), r#"Call { secret: "***", n: 1 }"#.to_owned()),
            ("redis://app:hush@h:6379/0".to_owned(), "redis://***@h:6379/0".to_owned()),
            ("redis://:hu@sh@h:6379/0 down".to_owned(), "redis://:***@h:6379/0 down".to_owned()),
            ("with eyJhbGciOi.eyJwaWQi.c2ln in it".to_owned(), "with *** in it".to_owned()),
        ] {
            assert_eq!(cleaned(&text), shown);
        }
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in [
            "",
            "accepting rests for a moment",
            "http://127.0.0.1:80/a@b",
            "the token is wrong",
            "the queue lost its data: it was restarted",
            "boot 1f2e3d4c, node 7: gone",
            "naïve 日本 ✓",
            "error=Connection refused (os error 111)",
        ] {
            assert_eq!(cleaned(text), text);
        }
    }

    #[test]
    fn no_value_ends_its_line_and_long_ones_are_cut() {
        assert_eq!(cleaned("a\nb\r\x1b[31m\u{202e}"), "a\\nb\\r\\u{1b}[31m\\u{202e}");
        let long = "é".repeat(200);
        let shown = cleaned(&long);
        assert_eq!(shown, format!("{}…", "é".repeat(128)));
        let mut collected = String::new();
        write!(Bounded::new(&mut collected, 256), "{long}{long}").expect("a string takes all");
        assert_eq!(cleaned(&collected), shown);
    }
}
