//! What a client reads: frames out of bytes as they come, messages out of frames.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A message to a user connection.
#[derive(Debug, Deserialize)]
pub struct Message<'a> {
    #[serde(rename = "type")]
    pub kind: Option<&'a str>,
    pub tag: Option<&'a str>,
    pub id: Option<&'a str>,
    pub prev: Option<&'a str>,
    #[serde(default)]
    pub merged: u64,
    #[serde(default)]
    pub snapshot: bool,
    #[serde(default)]
    pub gap: bool,
    pub ack_id: Option<&'a str>,
    #[serde(borrow)]
    pub payload: Option<&'a RawValue>,
}

/// A frame from the server.
#[derive(Debug)]
pub enum Frame<'a> {
    Text(&'a str),
    Ping,
    Close(u16),
}

/// Bytes that are no whole frame yet.
#[derive(Debug, Default)]
pub struct Reader {
    bytes: Vec<u8>,
    /// Bytes of frames that were given out.
    taken: usize,
}

impl Reader {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame.
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, String> {
        let rest = &self.bytes[self.taken..];
        let [first, second, ..] = *rest else { return Ok(None) };
        let (header, length) = match second {
            126 if rest.len() >= 4 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
            126 => return Ok(None),
            0..126 => (2, usize::from(second)),
            _ => return Err(format!("a frame begins with {first:02x} {second:02x}")),
        };
        let Some(payload) = rest.get(header..header + length) else { return Ok(None) };
        self.taken += header + length;
        Ok(Some(match (first, payload) {
            (0x81, text) => Frame::Text(std::str::from_utf8(text).map_err(|error| error.to_string())?),
            (0x89, _) => Frame::Ping,
            (0x88, [high, low, ..]) => Frame::Close(u16::from_be_bytes([*high, *low])),
            _ => return Err(format!("a frame begins with {first:02x}")),
        }))
    }
}
