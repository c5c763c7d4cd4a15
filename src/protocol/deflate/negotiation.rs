//! `Sec-WebSocket-Extensions`: offers read strictly, the first that can be met accepted (RFC 6455, section 9.1; RFC 7692,
//! sections 5 and 7.1).
//!
//! A client's window is taken as it is offered, for an inflater of the largest window reads them all. A server's window
//! of 8 bits is agreed to as well, though no compressor makes it: what fits into it whole is compressed, the rest goes
//! plain, which any message may. The client can still compress what it sends; declined, it could not.

use std::{borrow::Cow, num::NonZeroU8};

/// The extension's name.
const NAME: &str = "permessage-deflate";

/// The windows there are, in bits (RFC 7692, section 7.1.2).
const WINDOW_BITS: std::ops::RangeInclusive<u8> = 8..=15;

/// What was agreed on with one client: the window of what it is sent. All else is the same for everyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// Not zero, so that a connection without any costs no byte more.
    window_bits: NonZeroU8,
}

// A connection pays for this.
const _: () = assert!(size_of::<Option<Deflate>>() == 1);

/// An offer that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// For the connection.
    pub deflate: Deflate,
    /// `Sec-WebSocket-Extensions` of the answer.
    pub answer: String,
}

/// The first offer in `header` (all `Sec-WebSocket-Extensions` of a request, joined by commas) that can be met.
///
/// An offer with a parameter that is unknown, doubled or badly valued is passed over, as are other extensions. A header
/// that is no list of extensions offers nothing.
///
/// ```
/// use ws_cluster::protocol::deflate::negotiate;
///
/// let agreement = negotiate("permessage-deflate; client_max_window_bits").unwrap();
/// assert_eq!(agreement.answer, "permessage-deflate; server_no_context_takeover; client_no_context_takeover");
/// assert_eq!(agreement.deflate.window_bits(), 15);
/// assert_eq!(negotiate("permessage-deflate; server_max_window_bits=16"), None);
/// ```
pub fn negotiate(header: &str) -> Option<Agreement> {
    let mut cursor = Cursor { rest: header };
    let mut first = None;
    loop {
        cursor.skip_spaces();
        // A list may hold empty elements (RFC 2616, section 2.1).
        if cursor.eat(',') {
            continue;
        }
        if cursor.rest.is_empty() {
            return first.as_ref().map(Offer::accept);
        }
        let offer = cursor.offer()?;
        first = first.or(offer);
        if !cursor.rest.is_empty() && !cursor.eat(',') {
            return None;
        }
    }
}

impl Deflate {
    /// The window of what the client is sent, in bits: 8 to 15.
    pub fn window_bits(self) -> u8 {
        self.window_bits.get()
    }
}

/// The parameters of one offer.
#[derive(Clone, Debug, Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_window_bits: Option<NonZeroU8>,
    client_window: Option<ClientWindow>,
}

/// How `client_max_window_bits` is offered.
#[derive(Clone, Copy, Debug)]
enum ClientWindow {
    /// The client would keep to any.
    Any,
    /// It will use no more than this.
    AtMost(NonZeroU8),
}

impl Offer {
    /// Notes a parameter; `None` if the offer is invalid with it.
    fn with(mut self, name: &str, value: Option<&str>) -> Option<Self> {
        let is_first = match name {
            "server_no_context_takeover" if value.is_none() => {
                !std::mem::replace(&mut self.server_no_context_takeover, true)
            }
            "client_no_context_takeover" if value.is_none() => {
                !std::mem::replace(&mut self.client_no_context_takeover, true)
            }
            "server_max_window_bits" => self.server_window_bits.replace(window_bits(value?)?).is_none(),
            "client_max_window_bits" => {
                let window = match value {
                    Some(value) => ClientWindow::AtMost(window_bits(value)?),
                    None => ClientWindow::Any,
                };
                self.client_window.replace(window).is_none()
            }
            _ => return None,
        };
        is_first.then_some(self)
    }

    /// An answer may name both `no_context_takeover` unasked. It names a window only where the offer names it; of a
    /// client that would keep to any, the inflater wants none.
    fn accept(&self) -> Agreement {
        let mut answer = format!("{NAME}; server_no_context_takeover; client_no_context_takeover");
        if let Some(bits) = self.server_window_bits {
            answer.push_str(&format!("; server_max_window_bits={bits}"));
        }
        if let Some(ClientWindow::AtMost(bits)) = self.client_window {
            answer.push_str(&format!("; client_max_window_bits={bits}"));
        }
        let window_bits = self.server_window_bits.unwrap_or(const { NonZeroU8::new(*WINDOW_BITS.end()).unwrap() });
        Agreement { deflate: Deflate { window_bits }, answer }
    }
}

/// Decimal without leading zeros, 8 to 15.
fn window_bits(value: &str) -> Option<NonZeroU8> {
    let is_plain = !value.starts_with(['0', '+']);
    let bits = value.parse().ok().filter(|bits| is_plain && WINDOW_BITS.contains(bits))?;
    NonZeroU8::new(bits)
}

/// What of the header is not read yet.
struct Cursor<'h> {
    rest: &'h str,
}

impl<'h> Cursor<'h> {
    /// Reads one extension with its parameters. `None`: that is not what stands here; `Some(None)`: none that is accepted.
    fn offer(&mut self) -> Option<Option<Offer>> {
        let mut offer = (self.token()? == NAME).then(Offer::default);
        loop {
            self.skip_spaces();
            if !self.eat(';') {
                return Some(offer);
            }
            self.skip_spaces();
            let name = self.token()?;
            self.skip_spaces();
            let value = if self.eat('=') {
                self.skip_spaces();
                Some(self.value()?)
            } else {
                None
            };
            offer = offer.and_then(|offer| offer.with(name, value.as_deref()));
        }
    }

    fn token(&mut self) -> Option<&'h str> {
        let end = self.rest.find(|c| !is_token_char(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    /// A token, or a quoted string that holds one.
    fn value(&mut self) -> Option<Cow<'h, str>> {
        if !self.eat('"') {
            return self.token().map(Cow::Borrowed);
        }
        let mut unquoted = String::new();
        loop {
            let mut next = self.take()?;
            match next {
                '"' => return (!unquoted.is_empty()).then_some(Cow::Owned(unquoted)),
                '\\' => next = self.take()?,
                _ => {}
            }
            if !is_token_char(next) {
                return None;
            }
            unquoted.push(next);
        }
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let next = chars.next()?;
        self.rest = chars.as_str();
        Some(next)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }
}

/// RFC 9110, section 5.6.2.
fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}
