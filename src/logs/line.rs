//! One event as one line: for people, or as a JSON object of the shape that `tracing_subscriber`'s has.
//!
//! Invariants: a line ends with the only newline in it and is at most [`LOG_LINE_BYTES_MAX`] long; every value went
//! through [`clean`] or [`clean_named`].

use std::{
    fmt::{self, Write},
    time::Duration,
};

use tracing::{
    Event, Level,
    field::{Field, Visit},
};

use crate::{
    clock,
    limits::{LOG_LINE_BYTES_MAX, LOG_MESSAGE_BYTES_MAX, USER_TEXT_BYTES_MAX},
};

use super::text::{Bounded, clean, clean_named};

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people; with the module that speaks, or without.
    Human {
        /// Whether the module is shown.
        target: bool,
    },
    /// One JSON object.
    Json {
        /// The node's number, which each line has.
        node: u16,
    },
}

impl Form {
    /// Appends the line of `event`, made at `unix`.
    pub fn event(self, event: &Event<'_>, unix: Duration, out: &mut String) {
        let (mut message, mut rest) = (String::new(), String::new());
        let mut fields = Fields { json: self.is_json(), message: &mut message, rest: &mut rest, value: String::new() };
        event.record(&mut fields);
        let meta = event.metadata();
        self.assemble(unix, *meta.level(), meta.target(), (&message, &rest), out);
    }

    /// Appends the line that tells of lost ones.
    pub fn lost(self, lines: u64, unix: Duration, out: &mut String) {
        let (message, rest) = match self {
            Self::Human { .. } => (format!("{lines} lines were lost"), String::new()),
            Self::Json { .. } => (format!("\"{lines} lines were lost\""), format!(",\"lines\":{lines}")),
        };
        self.assemble(unix, Level::WARN, super::TARGET, (&message, &rest), out);
    }

    fn is_json(self) -> bool {
        matches!(self, Self::Json { .. })
    }

    fn assemble(self, unix: Duration, level: Level, target: &str, (message, rest): (&str, &str), out: &mut String) {
        let (begin, time) = (out.len(), clock::utc_text(unix));
        let end = match self {
            Self::Human { target: true } => {
                let _ = write!(out, "{time} {level:>5} {target}: {message}{rest}");
                "…\n"
            }
            Self::Human { target: false } => {
                let _ = write!(out, "{time} {level:>5} {message}{rest}");
                "…\n"
            }
            Self::Json { node } => {
                let message = if message.is_empty() { "\"\"" } else { message };
                let _ = write!(
                    out,
                    r#"{{"timestamp":"{time}","level":"{level}","node":{node},"target":"{target}","fields":{{"message":{message}{rest}}}}}"#
                );
                // A cut object is none any more, but still a line, and says so.
                "…\"}\n"
            }
        };
        if out.len() - begin >= LOG_LINE_BYTES_MAX {
            out.truncate(out.floor_char_boundary(begin + LOG_LINE_BYTES_MAX - end.len()));
            out.push_str(end);
        } else {
            out.push('\n');
        }
    }
}

/// Collects an event's fields as they stand in the line.
struct Fields<'a> {
    json: bool,
    message: &'a mut String,
    rest: &'a mut String,
    /// Reused from value to value.
    value: String,
}

impl Fields<'_> {
    fn text(&mut self, field: &Field, text: &str) {
        let mut cleaned = String::new();
        if field.name() == "message" {
            clean(text, LOG_MESSAGE_BYTES_MAX, &mut cleaned);
            return match self.json {
                true => json_text(&cleaned, self.message),
                false => self.message.push_str(&cleaned),
            };
        }
        clean_named(field.name(), text, USER_TEXT_BYTES_MAX, &mut cleaned);
        self.name(field);
        let is_bare = |c: char| !c.is_whitespace() && !"\"=\\".contains(c);
        if self.json {
            json_text(&cleaned, self.rest);
        } else if !cleaned.is_empty() && cleaned.chars().all(is_bare) {
            self.rest.push_str(&cleaned);
        } else {
            let _ = write!(self.rest, "\"{}\"", cleaned.replace('"', "\\\""));
        }
    }

    /// A number or truth value.
    fn bare(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.name(field);
        let _ = self.rest.write_fmt(value);
    }

    fn name(&mut self, field: &Field) {
        let _ = match self.json {
            true => write!(self.rest, ",\"{}\":", field.name()),
            false => write!(self.rest, " {}=", field.name()),
        };
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = std::mem::take(&mut self.value);
        let _ = write!(Bounded::new(&mut text, LOG_MESSAGE_BYTES_MAX), "{value:?}");
        self.text(field, &text);
        self.value = text;
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        match value.is_finite() {
            true => self.bare(field, format_args!("{value}")),
            false => self.text(field, &value.to_string()),
        }
    }
}

/// Appends a text without control characters as a JSON string.
fn json_text(cleaned: &str, out: &mut String) {
    out.push('"');
    for c in cleaned.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}
