//! A collector of traces: takes OTLP over HTTP, decodes it with the protocol's own published types, and keeps the spans.

use std::sync::{Arc, PoisonError};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::Span as Exported,
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

#[expect(clippy::disallowed_types, reason = "a test's list, held for a push")]
type List<T> = Arc<std::sync::Mutex<Vec<T>>>;

/// Where nodes may send their traces.
pub struct Collector {
    /// The endpoint.
    pub endpoint: String,
    spans: List<Span>,
}

/// A span as it came.
#[derive(Clone, Debug)]
pub struct Span {
    /// `service.instance.id` of the node.
    pub node: String,
    /// The span's name.
    pub name: String,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The same; empty: it has no parent.
    pub parent_id: String,
    /// Unix nanoseconds.
    pub times: (u64, u64),
    /// Names and values.
    pub attributes: Vec<(String, String)>,
}

impl Collector {
    /// Listens on a free port until the test ends.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let spans = List::<Span>::default();
        let kept = spans.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, kept.clone()));
            }
        });
        Self { endpoint: format!("http://{address}/v1/traces"), spans }
    }

    /// What has come so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Answers requests until the peer goes away.
async fn serve(mut stream: TcpStream, spans: List<Span>) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            read(&mut stream, &mut buffer).await?;
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).to_lowercase();
        assert!(
            head.starts_with("post /v1/traces ") && head.contains("content-type: application/x-protobuf"),
            "{head}"
        );
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?;
        let end = head_end + length.trim().parse::<usize>().ok()?;
        while buffer.len() < end {
            read(&mut stream, &mut buffer).await?;
        }
        let request = ExportTraceServiceRequest::decode(&buffer[head_end..end]).expect("an export of traces");
        spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans_of(request));
        buffer.drain(..end);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok()?;
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    (stream.read_buf(buffer).await.ok()? > 0).then_some(())
}

fn spans_of(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| pairs(&resource.attributes)).unwrap_or_default();
        let node = attributes.iter().find(|(name, _)| name == "service.instance.id").expect("the node's id").1.clone();
        let exported = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(exported.map(|exported| span(&node, exported)));
    }
    spans
}

fn span(node: &str, exported: Exported) -> Span {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Span {
        node: node.to_owned(),
        name: exported.name,
        trace_id: hex(&exported.trace_id),
        span_id: hex(&exported.span_id),
        parent_id: hex(&exported.parent_span_id),
        times: (exported.start_time_unix_nano, exported.end_time_unix_nano),
        attributes: pairs(&exported.attributes),
    }
}

fn pairs(attributes: &[KeyValue]) -> Vec<(String, String)> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(&pair.value))).collect()
}
