//! From ended spans to the collector: OTLP over HTTP, by the SDK's own thread.
//!
//! Invariant: whoever ends a span does not wait; a collector that is slow or away costs spans and nothing else.

use std::{
    fmt,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor},
};

use super::{Part, Span, TraceSettings, Way};
use crate::{
    limits::{TRACE_ANSWER_BYTES_MAX, TRACE_EXPORT_INTERVAL, TRACE_EXPORT_TIMEOUT, TRACE_SPANS_MAX},
    metrics::{Count, Counters},
    model::{NodeId, Tag, TraceParent},
};

/// The SDK's thread and the queue to it.
#[derive(Debug)]
pub(super) struct Exporting {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    pub one_in: u32,
}

impl Exporting {
    pub fn start(settings: TraceSettings, counters: Arc<Counters>) -> Result<Self, String> {
        let TraceSettings { endpoint, one_in, node } = settings;
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Client(agent()))
            .with_endpoint(endpoint)
            .with_timeout(TRACE_EXPORT_TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(TRACE_SPANS_MAX)
            .with_scheduled_delay(TRACE_EXPORT_INTERVAL)
            .build();
        let exporter = Counting { exporter, counters };
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        processor.set_resource(&resource(node));
        let scope = InstrumentationScope::builder("ws-cluster").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { processor, scope, one_in: one_in.max(1) })
    }

    pub fn stop(&self, time: Duration) {
        if let Err(error) = self.processor.shutdown_with_timeout(time) {
            tracing::warn!(%error, "the last traces were not exported");
        }
    }

    pub fn end(&self, span: &Span, end_us: u64, tag: Option<&Tag>, is_good: bool) {
        let (name, span_kind) = match span.part {
            Part::Push(_) => ("push", SpanKind::Server),
            Part::Log => ("log", SpanKind::Consumer),
            Part::Deliver { .. } => ("deliver", SpanKind::Internal),
        };
        self.processor.on_end(SpanData {
            span_context: context(span.own),
            parent_span_id: SpanId::from_bytes(span.parent.to_be_bytes()),
            parent_span_is_remote: !matches!(span.part, Part::Deliver { .. }),
            span_kind,
            name: name.into(),
            start_time: at(span.begin_us),
            end_time: at(end_us.max(span.begin_us)),
            attributes: attributes(span.part, tag),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if is_good { Status::Unset } else { Status::error("refused") },
            instrumentation_scope: self.scope.clone(),
        });
    }
}

fn resource(node: NodeId) -> Resource {
    let attributes = [
        KeyValue::new("service.name", "ws-cluster"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node.to_string()),
    ];
    Resource::builder_empty().with_attributes(attributes).build()
}

fn context(TraceParent { trace_id, span_id }: TraceParent) -> SpanContext {
    let (trace_id, span_id) = (TraceId::from_bytes(trace_id.to_be_bytes()), SpanId::from_bytes(span_id.to_be_bytes()));
    SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::NONE)
}

/// Names from OpenTelemetry's conventions for messaging where they have one.
fn attributes(part: Part, tag: Option<&Tag>) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(2);
    attributes.extend(tag.map(|tag| KeyValue::new("messaging.destination.name", tag.as_str().to_owned())));
    match part {
        Part::Push(way) => attributes.push(KeyValue::new("way", if way == Way::Http { "http" } else { "socket" })),
        Part::Log => {}
        Part::Deliver { core } => attributes.push(KeyValue::new("core", i64::from(core))),
    }
    attributes
}

fn at(us: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(us)
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TRACE_EXPORT_TIMEOUT))
        .http_status_as_error(false)
        // A collector that sends elsewhere is set up wrongly.
        .max_redirects(0);
    config.build().into()
}

/// Counts what the collector has taken and what it has not.
#[derive(Debug)]
struct Counting {
    exporter: opentelemetry_otlp::SpanExporter,
    counters: Arc<Counters>,
}

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let exported = self.exporter.export(batch).await;
        let count = if exported.is_ok() { Count::SpansExported } else { Count::SpansFailed };
        self.counters.add(count, spans);
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Sends what the exporter has encoded; blocks, which is right on the SDK's thread.
struct Client(ureq::Agent);

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (parts, body) = request.into_parts();
        let answer = self.0.run(Request::from_parts(parts, body.to_vec()))?;
        let (parts, mut body) = answer.into_parts();
        let body = body.with_config().limit(TRACE_ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(parts, body.into()))
    }
}

impl HttpClient for Client {
    fn send_bytes<'life, 'future>(
        &'life self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(ready(self.send(request)))
    }
}
