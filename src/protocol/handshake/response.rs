//! What the server says to a head, as whole HTTP/1.1 responses.

use tungstenite::handshake::derive_accept_key;

/// The 101 to a valid handshake with this `Sec-WebSocket-Key`. Agrees on no subprotocol, and on the extensions given.
pub fn accept_response(key: &str, extensions: Option<&str>) -> Vec<u8> {
    let token = accept_token(key);
    let agreed = extensions.map(|agreed| format!("Sec-WebSocket-Extensions: {agreed}\r\n")).unwrap_or_default();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {token}\r\n{agreed}\r\n"
    )
    .into_bytes()
}

/// `Sec-WebSocket-Accept` for a key (RFC 6455, section 4.2.2).
pub fn accept_token(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

/// A response behind which the connection is closed. A body that starts with `{` is declared as JSON, any other
/// as plain text.
pub fn error_response(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let kind = if body.starts_with('{') { "application/json" } else { "text/plain; charset=utf-8" };
    let extra: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    debug_assert!(!headers.iter().any(|(name, value)| name.contains(['\r', '\n']) || value.contains(['\r', '\n'])));
    let reason = reason(status);
    let length = body.len();
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\
         {extra}\r\n{body}"
    )
    .into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
