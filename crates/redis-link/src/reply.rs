//! What a server answers, without fred's types.

use bytes::Bytes;
use fred::types::Resp3Frame;

use crate::LinkError;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    Nil,
    /// A number.
    Int(i64),
    /// A string, simple or not.
    Text(Bytes),
    /// A list; a map is a list of its keys and values by turns.
    List(Vec<Reply>),
}

impl Reply {
    /// The answer in a frame. An error inside a list is a text.
    pub(crate) fn from_frame(frame: Resp3Frame) -> Result<Self, LinkError> {
        match frame {
            Resp3Frame::SimpleError { data, .. } => Err(LinkError::Rejected(data.to_string())),
            Resp3Frame::BlobError { data, .. } => Err(LinkError::Rejected(String::from_utf8_lossy(&data).into_owned())),
            other => Ok(Self::value(other)),
        }
    }

    fn value(frame: Resp3Frame) -> Self {
        match frame {
            Resp3Frame::BlobString { data, .. }
            | Resp3Frame::SimpleString { data, .. }
            | Resp3Frame::BigNumber { data, .. }
            | Resp3Frame::VerbatimString { data, .. }
            | Resp3Frame::BlobError { data, .. }
            | Resp3Frame::ChunkedString(data) => Reply::Text(data),
            Resp3Frame::SimpleError { data, .. } => Reply::Text(data.into_inner()),
            Resp3Frame::Number { data, .. } => Reply::Int(data),
            Resp3Frame::Boolean { data, .. } => Reply::Int(i64::from(data)),
            Resp3Frame::Double { data, .. } => Reply::Text(data.to_string().into()),
            Resp3Frame::Array { data, .. } | Resp3Frame::Push { data, .. } => {
                Reply::List(data.into_iter().map(Self::value).collect())
            }
            Resp3Frame::Set { data, .. } => Reply::List(data.into_iter().map(Self::value).collect()),
            Resp3Frame::Map { data, .. } => {
                Reply::List(data.into_iter().flat_map(|(key, value)| [Self::value(key), Self::value(value)]).collect())
            }
            Resp3Frame::Null | Resp3Frame::Hello { .. } => Reply::Nil,
        }
    }

    /// The answer as text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Reply::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The answer as a number, if it is one or the text of one.
    pub fn number(&self) -> Option<u64> {
        match self {
            Reply::Int(number) => u64::try_from(*number).ok(),
            _ => self.text()?.parse().ok(),
        }
    }

    /// The answer as a list; anything else is an empty one.
    pub fn list(self) -> Vec<Reply> {
        match self {
            Reply::List(list) => list,
            _ => Vec::new(),
        }
    }
}
