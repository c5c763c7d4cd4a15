//! The parameters of a query or form (`application/x-www-form-urlencoded`), decoded.
//!
//! Invariants: a name stands once, whatever the text around it (two readers would each take another one); what
//! cannot be decoded is refused, not passed over.

use std::{borrow::Cow, fmt};

use super::fault::Fault;
use crate::limits::PARAMS_MAX;

/// Decoded parameters in the order of the text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// The parameters of a raw query, without its `?`.
    pub fn parse(raw: &'a str) -> Result<Self, Fault> {
        let mut params = Self::default();
        params.add(raw)?;
        Ok(params)
    }

    /// Adds the parameters of a form's body to those of the query.
    pub fn add(&mut self, raw: &'a str) -> Result<(), Fault> {
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let bad = Fault::BadField { field: "a parameter", rule: "percent-encoded UTF-8" };
            self.push(decode(name).ok_or(bad)?, decode(value).ok_or(bad)?)?;
        }
        Ok(())
    }

    fn push(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) -> Result<(), Fault> {
        if self.get(&name).is_some() {
            return Err(Fault::BadField { field: "a parameter", rule: "given once" });
        }
        if self.0.len() == PARAMS_MAX {
            return Err(Fault::BadField { field: "the parameters", rule: "at most 64" });
        }
        self.0.push((name, value));
        Ok(())
    }

    /// The value of `name`; empty if it stands without one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

const _: () = assert!(PARAMS_MAX == 64, "the fault says so");

impl fmt::Debug for Params<'_> {
    /// Names only: among the values are signs and payloads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// Undoes percent-encoding, and `+` for a space. None for a `%` without two hexadecimal digits, and for what is
/// then no UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if memchr::memchr2(b'%', b'+', text.as_bytes()).is_none() {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    //! Method: texts as browsers and curl send them, and those that two servers would read differently.

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_value_comes_through_encoding(value: String) {
            let encoded = percent_encoding::utf8_percent_encode(&value, percent_encoding::NON_ALPHANUMERIC).to_string();
            let raw = format!("v={encoded}");
            let params = Params::parse(&raw).unwrap();
            prop_assert_eq!(params.get("v"), Some(&*value));
        }

        #[test]
        fn any_text_is_read_or_refused(raw: String) {
            let _ = Params::parse(&raw);
        }
    }

    #[test]
    fn names_and_values_are_decoded() {
        let params = Params::parse("a=1+2%2B3&&b&c=x=y&%64=%e2%82%ac%2c").unwrap();
        let pairs: Vec<_> = params.iter().collect();
        assert_eq!(pairs, [("a", "1 2+3"), ("b", ""), ("c", "x=y"), ("d", "€,")]);
        assert_eq!(params.get("e"), None);
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        for bad in ["a=%", "a=%2", "a=%zz", "%=1", "a=%ff", "a=%+1", "a=%c3%28"] {
            assert_eq!(Params::parse(bad).map_err(Fault::err), Err("bad_field"), "{bad}");
        }
    }

    #[test]
    fn a_name_stands_once_in_query_and_form_together() {
        assert!(Params::parse("a=1&%61=2").is_err());
        let mut params = Params::parse("a=1").unwrap();
        assert!(params.add("b=2").is_ok() && params.add("a=1").is_err());
    }

    #[test]
    fn there_are_at_most_so_many() {
        let raw: String = (0..PARAMS_MAX).map(|n| format!("p{n}=1&")).collect();
        assert!(Params::parse(&raw).is_ok());
        assert!(Params::parse(&format!("{raw}one=more")).is_err());
    }

    #[test]
    fn values_do_not_show_in_debug() {
        assert_eq!(format!("{:?}", Params::parse("sign=feedbeef").unwrap()), r#"{"sign"}"#);
    }
}
