//! What a measured payload says: its number in its group and when it was meant to leave. Pure.
//!
//! Found by its first bytes wherever an envelope puts it, so that a reader of thousands of connections parses no JSON.

/// How a payload begins.
const BEGIN: &[u8] = br#"{"n":"#;
const THEN: &[u8] = br#","t":"#;

/// A payload's number and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The publication's number in its group, or the request's of its user.
    pub number: u64,
    /// When it was meant to leave: microseconds of the monotonic clock.
    pub due_us: u64,
}

impl Mark {
    /// A JSON object with this mark, of `bytes` where that is enough.
    pub fn payload(self, bytes: usize) -> String {
        let Self { number, due_us } = self;
        let mut text = format!(r#"{{"n":{number},"t":{due_us},"pad":""#);
        let pad = bytes.saturating_sub(text.len() + 2);
        text.extend(std::iter::repeat_n('x', pad));
        text.push_str("\"}");
        text
    }

    /// The mark in `text`; `hint` is where the last one stood, and is set.
    pub fn find(text: &[u8], hint: &mut usize) -> Option<Self> {
        if !text.get(*hint..).is_some_and(|rest| rest.starts_with(BEGIN)) {
            *hint = text.windows(BEGIN.len()).position(|window| window == BEGIN)?;
        }
        let (number, rest) = digits(&text[*hint + BEGIN.len()..])?;
        let (due_us, _) = digits(rest.strip_prefix(THEN)?)?;
        Some(Self { number, due_us })
    }
}

fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = bytes[..length]
        .iter()
        .try_fold(0_u64, |number, digit| number.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
    (length > 0).then_some((number, &bytes[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_in_any_envelope() {
        let mark = Mark { number: 17, due_us: 123_456_789 };
        let mut hint = 0;
        for envelope in ["", r#"{"tag":"a","id":"1-2","prev":"","payload":"#, r#"{"payload":"#] {
            let text = format!("{envelope}{}}}", mark.payload(100));
            assert_eq!(Mark::find(text.as_bytes(), &mut hint), Some(mark), "{text}");
            assert_eq!(hint, envelope.len());
        }
        assert_eq!(mark.payload(100).len(), 100);
    }

    #[test]
    fn what_is_no_mark_is_none() {
        for text in ["", "{", r#"{"n":"#, r#"{"n":1"#, r#"{"n":1,"t":}"#, r#"{"n":99999999999999999999,"t":1"#] {
            assert_eq!(Mark::find(text.as_bytes(), &mut 0), None, "{text}");
        }
        assert_eq!(Mark::find(b"{}", &mut 70), None, "a hint behind the end");
    }
}
