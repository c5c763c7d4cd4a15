//! What can be wrong with what a peer says, and what would be right.
//!
//! Invariant: a fault holds no text of the peer's, so that it can be logged and answered as it is.

use std::fmt;

/// Why a message, a push or a control is not taken. Nothing has been done of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The text is no JSON object.
    NoObject,
    /// Nested too deep.
    TooDeep {
        /// The bound.
        depth_max: usize,
    },
    /// A type that does not exist for this kind of connection.
    UnknownType,
    /// A field that breaks its rule, or stands twice.
    BadField {
        /// Which.
        field: &'static str,
        /// What would be right; it completes "must be".
        rule: &'static str,
    },
    /// A push or control without audience that does not ask for all.
    NoAudience,
    /// A push without payload.
    NoPayload,
    /// The payload is over its bound.
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The audience is over its bound.
    TooManyMembers {
        /// The bound.
        members_max: usize,
    },
}

impl Fault {
    /// The stable word of the protocol (`err`).
    pub fn err(self) -> &'static str {
        match self {
            Fault::NoObject => "bad_json",
            Fault::TooDeep { .. } => "too_deep",
            Fault::UnknownType => "bad_type",
            Fault::BadField { .. } => "bad_field",
            Fault::NoAudience => "no_audience",
            Fault::NoPayload => "no_payload",
            Fault::TooLarge { .. } => "too_large",
            Fault::TooManyMembers { .. } => "audience_too_large",
        }
    }

    /// Whether it is for its size that it is not taken (HTTP 413; any other fault is a 400).
    pub fn is_about_size(self) -> bool {
        matches!(self, Fault::TooLarge { .. } | Fault::TooManyMembers { .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::NoObject => f.write_str("the text must be one JSON object"),
            Fault::TooDeep { depth_max } => write!(f, "the JSON must not be nested deeper than {depth_max}"),
            Fault::UnknownType => f.write_str("there is no such type"),
            Fault::BadField { field, rule } => write!(f, "{field} must be {rule}"),
            Fault::NoAudience => {
                f.write_str("uids, cids, tags or devices must be given, or \"all\":true for the whole project")
            }
            Fault::NoPayload => f.write_str("the payload is missing"),
            Fault::TooLarge { bytes, bytes_max } => {
                write!(f, "the payload of {bytes} bytes must not be over {bytes_max}")
            }
            Fault::TooManyMembers { members_max } => write!(f, "the audience must not be over {members_max} members"),
        }
    }
}

impl std::error::Error for Fault {}
