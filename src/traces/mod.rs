//! Traces of single pushes: from the way in, through the log, to the sockets of every node (OpenTelemetry).
//!
//! A push that is sampled carries its trace in its [`Stamp`], and each part of its way ends a [`Span`] of it. Spans go
//! through a bounded queue to a thread that exports them; with a full queue they are dropped, and nobody waits.
//! Invariant: what is not sampled costs one comparison, and nothing of a payload, sign or token is in a span.

mod export;

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use crate::{
    metrics::{Count, Counters, latency::Stage},
    model::{NodeId, Record, RecordId, Refusal, Stamp, Tag, TraceParent},
};

/// Where traces go, and which pushes have one.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The collector's OTLP/HTTP endpoint for traces, with its path (`/v1/traces`).
    pub endpoint: String,
    /// One push in so many gets a trace; those that come with a sampled `traceparent` do besides.
    pub one_in: u32,
    /// The node's number.
    pub node: NodeId,
}

/// The node's way to its collector, or none.
#[derive(Clone, Debug, Default)]
pub struct Traces(Option<Arc<export::Exporting>>);

/// One thread's part in traces and times: stamps what comes in, and ends spans.
#[derive(Debug)]
pub struct Stamper {
    traces: Traces,
    counters: Arc<Counters>,
    /// Whether pushes are stamped with the time at all.
    tells_time: bool,
    /// Pushes until the next one that is sampled.
    left: Cell<u32>,
    /// Counts the ids that were drawn; hashed with a key of its own, they are random.
    drawn: Cell<u64>,
    hasher: RandomState,
}

/// What a span tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A push, from the moment in which its node had read it until its publisher was answered.
    Push(Way),
    /// Its way through the log, until this node has heard it.
    Log,
    /// From there until this core has given it to every socket that takes it.
    Deliver {
        /// The core.
        core: u8,
    },
}

/// How a push came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over the HTTP API.
    Http,
    /// Over a back-end's socket.
    Socket,
}

/// A part of a push's way that has begun.
#[derive(Clone, Debug)]
pub struct Span {
    /// What it tells of.
    pub part: Part,
    /// The trace, and this span in it.
    pub own: TraceParent,
    /// The span that it belongs to; 0: none.
    parent: u64,
    begin_us: u64,
}

impl Traces {
    /// Traces that go to a collector.
    ///
    /// Errors: the endpoint is none.
    pub fn start(settings: TraceSettings, counters: Arc<Counters>) -> Result<Self, String> {
        Ok(Self(Some(Arc::new(export::Exporting::start(settings, counters)?))))
    }

    /// Exports what has ended, for at most so long, and stops.
    pub fn stop(&self, time: Duration) {
        if let Some(exporting) = &self.0 {
            exporting.stop(time);
        }
    }
}

impl Stamper {
    /// A thread's stamper; its counters count its spans.
    pub fn new(traces: Traces, tells_time: bool, counters: Arc<Counters>) -> Self {
        let (left, drawn) = (Cell::new(0), Cell::new(0));
        Self { traces, counters, tells_time, left, drawn, hasher: RandomState::new() }
    }

    /// Stamps pushes that were read at `now_us` and came with `traceparent`, if that is one; the spans that begin.
    pub fn stamp<'r>(
        &self,
        records: impl IntoIterator<Item = &'r mut Record>,
        way: Way,
        now_us: u64,
        traceparent: Option<&str>,
    ) -> Vec<Span> {
        let mut spans = Vec::new();
        let parent = self.traces.0.as_ref().and_then(|_| TraceParent::parse(traceparent?));
        for stamp in records.into_iter().filter_map(Record::stamp_mut) {
            let span = self.begin_push(way, now_us, parent);
            stamp.received_us = if self.tells_time || span.is_some() { now_us } else { 0 };
            stamp.trace = span.as_ref().map(|span| Box::new(span.own));
            spans.extend(span);
        }
        spans
    }

    fn begin_push(&self, way: Way, begin_us: u64, parent: Option<(TraceParent, bool)>) -> Option<Span> {
        let exporting = self.traces.0.as_ref()?;
        let (trace_id, parent) = match parent {
            Some((parent, true)) => (parent.trace_id, parent.span_id),
            // Whoever has decided against a trace means this push too.
            Some((_, false)) => return None,
            None if self.left.get() > 0 => {
                self.left.set(self.left.get() - 1);
                return None;
            }
            None => {
                self.left.set(exporting.one_in - 1);
                (u128::from(self.draw()) << 64 | u128::from(self.draw()), 0)
            }
        };
        let own = TraceParent { trace_id, span_id: self.draw() };
        Some(Span { part: Part::Push(way), own, parent, begin_us })
    }

    /// The next part of a push's way, if it has a trace. What ends it is [`Stamper::end`].
    pub fn follow(&self, stamp: &Stamp, part: Part, begin_us: u64) -> Option<Span> {
        self.traces.0.as_ref()?;
        let TraceParent { trace_id, span_id } = **stamp.trace.as_ref()?;
        Some(Span { part, own: TraceParent { trace_id, span_id: self.draw() }, parent: span_id, begin_us })
    }

    /// The publisher of what was stamped at `received_us` is answered: books the age of what the queue has taken, and
    /// ends the spans.
    pub fn answered(&self, results: &[Result<RecordId, Refusal>], received_us: u64, spans: &[Span], now_us: u64) {
        let received_us = if self.tells_time { received_us } else { 0 };
        let latency = self.counters.latency();
        let taken = results.iter().filter(|result| result.is_ok());
        taken.for_each(|_| latency.record_since(Stage::Queued, received_us, now_us));
        let is_good = results.iter().all(Result::is_ok);
        spans.iter().for_each(|span| self.end(span, now_us, None, is_good));
    }

    /// A part of the way is over.
    pub fn end(&self, span: &Span, end_us: u64, tag: Option<&Tag>, is_good: bool) {
        if let Some(exporting) = &self.traces.0 {
            self.counters.inc(Count::SpansEnded);
            exporting.end(span, end_us, tag, is_good);
        }
    }

    /// A random number that is not 0.
    fn draw(&self) -> u64 {
        self.drawn.set(self.drawn.get() + 1);
        self.hasher.hash_one(self.drawn.get()).max(1)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Pid, Publication};

    fn stamper(traces: Traces, tells_time: bool) -> Stamper {
        Stamper::new(traces, tells_time, Arc::default())
    }

    /// To a port that nobody listens on.
    fn traces(one_in: u32) -> Traces {
        let settings = TraceSettings { endpoint: "http://127.0.0.1:1/v1/traces".to_owned(), one_in, node: 7 };
        Traces::start(settings, Arc::default()).expect("an endpoint")
    }

    fn record() -> Record {
        let (pid, tag) = (Pid::new("1").expect("a pid"), Tag::new("t").expect("a tag"));
        let payload = Bytes::from_static(b"1");
        let (affair_id, idempotency_key, stamp) = (None, None, Stamp::default());
        Record::Publication(Publication { pid, tag, keep: false, affair_id, idempotency_key, payload, stamp })
    }

    fn stamped(stamper: &Stamper, traceparent: Option<&str>) -> (Stamp, Vec<Span>) {
        let mut record = record();
        let spans = stamper.stamp([&mut record], Way::Http, 1234, traceparent);
        (record.stamp_mut().expect("a push").clone(), spans)
    }

    #[test]
    fn without_a_collector_there_is_only_the_time_or_not_even_that() {
        let sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (tells_time, received_us) in [(true, 1234), (false, 0)] {
            let (stamp, spans) = stamped(&stamper(Traces::default(), tells_time), Some(sampled));
            assert_eq!(stamp, Stamp { received_us, trace: None });
            assert!(spans.is_empty());
        }
    }

    #[test]
    fn one_push_in_so_many_has_a_trace_and_every_trace_another_id() {
        let (traces, mut ids) = (traces(3), Vec::new());
        let stamper = stamper(traces.clone(), false);
        for number in 0..9 {
            let (stamp, spans) = stamped(&stamper, None);
            assert_eq!(stamp.trace.is_some(), number % 3 == 0);
            assert_eq!(stamp.trace.as_deref().copied(), spans.first().map(|span| span.own));
            ids.extend(stamp.trace.map(|trace| trace.trace_id));
        }
        ids.dedup();
        assert_eq!(ids.len(), 3);
        traces.stop(Duration::from_millis(1));
    }

    #[test]
    fn a_caller_that_has_decided_is_followed() {
        let traces = traces(1_000_000);
        let stamper = stamper(traces.clone(), false);
        let _first = stamped(&stamper, None);
        let (parent, yes) = (0x00f0_67aa_0ba9_02b7, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let (stamp, spans) = stamped(&stamper, Some(yes));
        assert_eq!(stamp.trace.expect("a trace").trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!(spans[0].parent, parent);
        assert!(stamped(&stamper, Some(&yes.replace("-01", "-00"))).1.is_empty());
        assert!(stamped(&stamper, Some("nonsense")).1.is_empty());
        traces.stop(Duration::from_millis(1));
    }
}
