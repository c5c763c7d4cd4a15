//! JSON text, as far as it is looked at and written here. A payload is validated and never re-encoded.

use std::{fmt::Display, io::Write};

use serde::de::IgnoredAny;

/// Whether nothing in `text` is nested deeper than `depth_max`: `[1]` and `{}` are 1 deep. Looks at brackets
/// outside of strings only, in one walk without recursion, so that whatever parses behind it can recurse safely.
pub fn depth_ok(text: &[u8], depth_max: usize) -> bool {
    let mut depth = 0_usize;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' if depth == depth_max => return false,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    true
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

/// Whether `bytes` are one JSON value in UTF-8. Numbers may be of any size: nobody here computes with them.
pub fn is_valid(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Appends `text` as a JSON string with its quotes (RFC 8259, section 7).
pub fn escape_into(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        escape_byte(out, byte);
        plain = at + 1;
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}

fn escape_byte(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
        }
    }
}

/// Writes one JSON object, member by member, into a caller's buffer. Names are the program's own and need no
/// escape.
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> Object<'o> {
    /// Appends the object that `members` writes.
    pub fn write(out: &'o mut Vec<u8>, members: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        let mut object = Object { out, empty: true };
        members(&mut object);
        object.out.push(b'}');
    }

    fn name(&mut self, name: &'static str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A member that is text.
    pub fn text(&mut self, name: &'static str, value: &str) {
        self.name(name);
        escape_into(self.out, value);
    }

    /// A member that is text, if there is one.
    pub fn text_if(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A member that shows itself as text in which nothing needs an escape: an id, or a sentence of our own.
    pub fn id(&mut self, name: &'static str, value: impl Display) {
        self.name(name);
        let before = self.out.len();
        // Writing into a vector does not fail.
        let _ = write!(self.out, "\"{value}\"");
        let shown = &self.out[before + 1..self.out.len() - 1];
        debug_assert!(shown.iter().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(byte)));
    }

    /// A member that is a whole number.
    pub fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        let _ = write!(self.out, "{value}");
    }

    /// A member that is `true`, if it is; left out if not.
    pub fn mark_if(&mut self, name: &'static str, value: bool) {
        if value {
            self.raw(name, b"true");
        }
    }

    /// A member that is JSON already.
    pub fn raw(&mut self, name: &'static str, json: &[u8]) {
        self.name(name);
        self.out.extend_from_slice(json);
    }

    /// A member that is an object.
    pub fn object(&mut self, name: &'static str, members: impl FnOnce(&mut Object<'_>)) {
        self.name(name);
        Object::write(self.out, members);
    }

    /// A member that is an array; `write` appends one item.
    pub fn array<T>(
        &mut self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Vec<u8>, T),
    ) {
        self.name(name);
        self.out.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            write(self.out, item);
        }
        self.out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    //! Method: serde_json as the judge of what is written, and hand-made texts for what is looked at.

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_reads_back_from_its_json_string(text: String) {
            let mut out = Vec::new();
            escape_into(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn any_bytes_can_be_looked_at(bytes: Vec<u8>) {
            depth_ok(&bytes, 3);
            is_valid(&bytes);
        }
    }

    #[test]
    fn depth_counts_brackets_outside_of_strings() {
        for (text, depth) in
            [("1", 0), ("[]", 1), ("{}", 1), (r#"{"a":[1,{"b":2}]}"#, 3), (r#"["[[[\"[[["]"#, 1), (r#""\\"[["#, 2)]
        {
            assert!(depth_ok(text.as_bytes(), depth), "{text}");
            assert!(depth == 0 || !depth_ok(text.as_bytes(), depth - 1), "{text}");
        }
        assert!(depth_ok(&[b"[],".repeat(1000), b"[]".to_vec()].concat(), 1), "side by side is not deep");
        assert!(!depth_ok(&b"[".repeat(1 << 20), 32));
    }

    #[test]
    fn valid_is_what_the_rfc_says_whatever_the_size_of_a_number() {
        for good in ["1", "-0.5e+9", " null ", "1e999999", "18446744073709551617", r#""\ud800""#, "[1,{\"a\":[]}]"] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in ["", " ", "01", "1 2", "{a:1}", "[1,]", "'x'", "\"\t\"", "NaN", "\u{feff}1", "nul"] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
        assert!(!is_valid(b"\"\xff\""), "no UTF-8");
    }

    #[test]
    fn control_characters_quotes_and_backslashes_are_escaped_and_nothing_else() {
        let mut out = Vec::new();
        escape_into(&mut out, "a\"b\\c\nd\re\tf\u{1}g\u{7f}é\u{2028}/");
        assert_eq!(String::from_utf8(out).unwrap(), "\"a\\\"b\\\\c\\nd\\re\\tf\\u0001g\u{7f}é\u{2028}/\"");
    }

    #[test]
    fn an_object_has_its_members_in_order() {
        let mut out = Vec::new();
        Object::write(&mut out, |object| {
            object.text("a", "x\"");
            object.text_if("b", None);
            object.number("c", 7);
            object.mark_if("d", false);
            object.mark_if("e", true);
            object.object("f", |inner| inner.raw("g", b"[ 1]"));
            object.array("h", [1, 2], |out, n| out.extend_from_slice(n.to_string().as_bytes()));
            object.id("i", 5);
        });
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"a":"x\"","c":7,"e":true,"f":{"g":[ 1]},"h":[1,2],"i":"5"}"#);
    }
}
