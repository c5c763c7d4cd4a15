//! The headers that decide, collected in one walk and judged together.

use super::{HandshakeError, Parsed, PlainRequest, Upgrade};

/// What the headers say. A header that may stand only once is refused the second time.
#[derive(Default)]
pub(super) struct Fields<'h> {
    host: Option<&'h [u8]>,
    origin: Option<&'h [u8]>,
    content_length: Option<&'h [u8]>,
    transfer_encoding: bool,
    connection_upgrade: bool,
    upgrade_websocket: bool,
    key: Option<&'h [u8]>,
    version: Option<&'h [u8]>,
    protocols: Option<Box<str>>,
    extensions: Option<Box<str>>,
    forwarded_for: Option<Box<str>>,
}

impl<'h> Fields<'h> {
    pub(super) fn collect(headers: &[httparse::Header<'h>]) -> Result<Self, HandshakeError> {
        let mut fields = Self::default();
        for header in headers {
            fields.note(header.name, header.value)?;
        }
        Ok(fields)
    }

    fn note(&mut self, name: &str, value: &'h [u8]) -> Result<(), HandshakeError> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("host") {
            once(&mut self.host, value, "two Host headers")?;
        } else if is("origin") {
            once(&mut self.origin, value, "two Origin headers")?;
        } else if is("content-length") {
            once(&mut self.content_length, value, "two Content-Length headers")?;
        } else if is("transfer-encoding") {
            self.transfer_encoding = true;
        } else if is("connection") {
            self.connection_upgrade |= has_token(value, "upgrade");
        } else if is("upgrade") {
            self.upgrade_websocket |= has_token(value, "websocket");
        } else if is("sec-websocket-key") {
            once(&mut self.key, value, "two Sec-WebSocket-Key headers")?;
        } else if is("sec-websocket-version") {
            once(&mut self.version, value, "two Sec-WebSocket-Version headers")?;
        } else if is("sec-websocket-protocol") {
            join(&mut self.protocols, value, "Sec-WebSocket-Protocol is not visible ASCII")?;
        } else if is("sec-websocket-extensions") {
            join(&mut self.extensions, value, "Sec-WebSocket-Extensions is not visible ASCII")?;
        } else if is("x-forwarded-for") {
            join(&mut self.forwarded_for, value, "X-Forwarded-For is not visible ASCII")?;
        }
        Ok(())
    }

    pub(super) fn judge(self, path: &str, query: &str) -> Result<Parsed, HandshakeError> {
        let host = self.host.filter(|host| is_host(host)).and_then(text);
        let host = host.ok_or(HandshakeError::Malformed("exactly one valid Host is needed"))?;
        // Either says where the next request begins, and there is none: the connection would be read wrongly.
        if self.transfer_encoding || self.content_length.is_some_and(|length| length != b"0") {
            return Err(HandshakeError::Malformed("a GET with a body"));
        }
        if !self.upgrade_websocket {
            return Ok(Parsed::Plain(PlainRequest { path: path.into(), query: query.into() }));
        }
        if !self.connection_upgrade {
            return Err(HandshakeError::Malformed("Upgrade without Connection: Upgrade"));
        }
        match self.version {
            Some(b"13") => {}
            Some(_) => return Err(HandshakeError::Version),
            None => return Err(HandshakeError::Malformed("no Sec-WebSocket-Version")),
        }
        let key = self.key.filter(|key| is_key(key)).and_then(text);
        let key = key.ok_or(HandshakeError::Malformed("Sec-WebSocket-Key is not 16 bytes in base64"))?;
        let origin = self.origin.map(|origin| text(origin).ok_or(HandshakeError::Malformed("Origin is not ASCII")));
        Ok(Parsed::Upgrade(Box::new(Upgrade {
            path: path.into(),
            query: query.into(),
            host: host.into(),
            origin: origin.transpose()?.map(Box::from),
            key: key.into(),
            protocols: self.protocols,
            extensions: self.extensions,
            forwarded_for: self.forwarded_for,
        })))
    }
}

fn once<'h>(slot: &mut Option<&'h [u8]>, value: &'h [u8], twice: &'static str) -> Result<(), HandshakeError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(HandshakeError::Malformed(twice)),
    }
}

/// Headers that are lists may stand several times; together they are one list (RFC 9110, section 5.3).
fn join(list: &mut Option<Box<str>>, value: &[u8], rule: &'static str) -> Result<(), HandshakeError> {
    let value = text(value).ok_or(HandshakeError::Malformed(rule))?;
    *list = Some(match list.take() {
        Some(before) => format!("{before}, {value}").into(),
        None => value.into(),
    });
    Ok(())
}

/// Whether the comma list `value` holds `token`, in any case.
fn has_token(value: &[u8], token: &str) -> bool {
    value.split(|&byte| byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The value as text, if it is visible ASCII, spaces and tabs.
fn text(value: &[u8]) -> Option<&str> {
    let visible = |&byte: &u8| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t';
    if !value.iter().all(visible) {
        return None;
    }
    std::str::from_utf8(value).ok()
}

/// A host and maybe a port (RFC 3986, section 3.2): no user, no path, no list.
fn is_host(value: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:[]".contains(byte);
    !value.is_empty() && value.iter().all(allowed)
}

/// 16 bytes in base64. The last character's idle bits may be anything: clients in the field set them.
fn is_key(value: &[u8]) -> bool {
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(value, [sextets @ .., b'=', b'='] if sextets.len() == 22 && sextets.iter().all(alphabet))
}
