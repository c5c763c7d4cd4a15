//! When a push came to the cluster, and the trace that follows it on its way.

use std::fmt;

/// What travels with a push besides what its publisher said. Nothing depends on it but what operators see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// When its node had read it, Unix microseconds by that node's clock; 0: not known.
    pub received_us: u64,
    /// The trace it belongs to, if that is sampled.
    pub trace: Option<Box<TraceParent>>,
}

/// A trace, and the span of it that what comes next belongs to (W3C Trace Context).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Never 0.
    pub trace_id: u128,
    /// Never 0.
    pub span_id: u64,
}

/// A version, the ids, the flags, and the dashes between them (W3C Trace Context, section 3.2.2).
const TEXT_BYTES: usize = 55;

impl TraceParent {
    /// Reads a `traceparent` header: the parent, and whether it is sampled. A later version may say more at its end.
    pub fn parse(text: &str) -> Option<(Self, bool)> {
        let is_later = || !text.starts_with("00") && text.as_bytes().get(TEXT_BYTES) == Some(&b'-');
        if !text.is_ascii() || text.starts_with("ff") || (text.len() != TEXT_BYTES && !is_later()) {
            return None;
        }
        let mut parts = text.split('-');
        let mut hex = |bytes: usize| {
            let part = parts.next()?;
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            (part.len() == bytes && part.bytes().all(is_hex)).then_some(part)
        };
        hex(2)?;
        let trace_id = u128::from_str_radix(hex(32)?, 16).ok()?;
        let span_id = u64::from_str_radix(hex(16)?, 16).ok()?;
        let flags = u8::from_str_radix(hex(2)?, 16).ok()?;
        let is_valid = trace_id != 0 && span_id != 0;
        is_valid.then_some((Self { trace_id, span_id }, flags & 1 == 1))
    }
}

impl fmt::Display for TraceParent {
    /// As a `traceparent` header says it, sampled.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-01", self.trace_id, self.span_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_reads_as_it_is_written() {
        let (parent, sampled) = TraceParent::parse(EXAMPLE).expect("the recommendation's own example");
        assert!(sampled);
        assert_eq!(
            (parent.trace_id, parent.span_id),
            (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7)
        );
        assert_eq!(parent.to_string(), EXAMPLE);
        assert_eq!(TraceParent::parse(&EXAMPLE.replace("-01", "-00")), Some((parent, false)));
        assert_eq!(TraceParent::parse(&format!("cc{}-what-comes-later", &EXAMPLE[2..])), Some((parent, true)));
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let zero_trace = format!("00-{:032x}-00f067aa0ba902b7-01", 0);
        let zero_span = EXAMPLE.replace("00f067aa0ba902b7", "0000000000000000");
        let later = format!("{EXAMPLE}-more");
        let (short, upper, version) = (&EXAMPLE[..54], EXAMPLE.to_uppercase(), EXAMPLE.replacen("00", "ff", 1));
        let signed = EXAMPLE.replacen("4b", "+b", 1);
        for text in ["", short, &upper, &version, &zero_trace, &zero_span, &later, &signed, "é"] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }
}
