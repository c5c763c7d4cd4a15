//! Counters of one core or thread, summed at scrape.
//!
//! Invariants: a counter is written by one thread only (a plain load and store, no lock and no shared cache
//! line), but for those of the whole process (`add_shared`), which are rare; labels are closed enums.

pub mod latency;
pub mod requests;

use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicU64, Ordering},
};

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $labels:literal, $help:literal;)*) => {
        /// What is counted. A gauge is a counter that also goes down.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Count { $($(#[$doc])* $variant,)* }

        impl Count {
            /// Every counter.
            pub const ALL: &[Count] = &[$(Count::$variant,)*];
            /// The metric's name, its labels as `name="value"` pairs (may be empty), its help text.
            pub const fn describe(self) -> (&'static str, &'static str, &'static str) {
                match self { $(Count::$variant => ($name, $labels, $help),)* }
            }
        }
    };
}

counters! {
    /// Open user connections (gauge).
    UserConnections => "ws_connection", r#"type="user""#, "Open connections.";
    /// Open back-end connections (gauge).
    BackendConnections => "ws_connection", r#"type="backend""#, "Open connections.";
    /// Connections whose begin or end waits for its turn (gauge).
    ConnectionsPutOff => "ws_connections_put_off", "", "Connections whose begin or end waits for its turn, behind those that stay.";
    /// Upgrades answered with 101 and kept.
    HandshakesAccepted => "ws_handshakes_total", r#"result="accepted""#, "Handshakes by result.";
    /// Requests that were no valid upgrade.
    HandshakesMalformed => "ws_handshakes_total", r#"result="malformed""#, "Handshakes by result.";
    /// Bad credentials.
    HandshakesDenied => "ws_handshakes_total", r#"result="denied""#, "Handshakes by result.";
    /// Health checks on the WebSocket listener.
    HandshakesPlain => "ws_handshakes_total", r#"result="plain""#, "Handshakes by result.";
    /// Sent to another node by the router.
    HandshakesRedirected => "ws_handshakes_total", r#"result="redirected""#, "Handshakes by result.";
    /// Over a cap of connections.
    HandshakesOverCap => "ws_handshakes_total", r#"result="over_cap""#, "Handshakes by result.";
    /// Not complete within the deadline.
    HandshakesTimedOut => "ws_handshakes_total", r#"result="timeout""#, "Handshakes by result.";
    /// Frames written.
    FramesOut => "ws_frames_total", r#"direction="out""#, "WebSocket frames.";
    /// Messages read.
    FramesIn => "ws_frames_total", r#"direction="in""#, "WebSocket frames.";
    /// Bytes written.
    BytesOut => "ws_bytes_total", r#"direction="out""#, "Bytes on WebSocket connections.";
    /// Bytes read.
    BytesIn => "ws_bytes_total", r#"direction="in""#, "Bytes on WebSocket connections.";
    /// Writes to sockets.
    Writes => "ws_writes_total", "", "Writes to sockets; frames per write is ws_frames_total over this.";
    /// Sockets that took no more.
    WritesBlocked => "ws_writes_blocked_total", "", "Writes that the kernel took only in part or not at all.";
    /// Open connections with permessage-deflate (gauge).
    DeflateConnections => "ws_deflate_connections", "", "Open connections that have agreed on permessage-deflate.";
    /// Messages compressed.
    DeflateCompressions => "ws_deflate_compressions_total", "", "Messages compressed: once a core and window, not once a recipient.";
    /// Their bytes before.
    DeflatePlainBytes => "ws_deflate_bytes_total", r#"stage="plain""#, "Bytes of the messages that were compressed, before and after; what did not get smaller counts as plain in both.";
    /// Their bytes afterwards.
    DeflateCompressedBytes => "ws_deflate_bytes_total", r#"stage="compressed""#, "Bytes of the messages that were compressed, before and after; what did not get smaller counts as plain in both.";
    /// Compressed messages read.
    Inflations => "ws_deflate_inflations_total", "", "Compressed messages read.";
    /// Bytes in outboxes (gauge).
    OutboxBytes => "ws_outbox_bytes", "", "Bytes that wait for sockets.";
    /// Frames dropped with a connection that was closed as too slow.
    DroppedSlow => "ws_drops_total", r#"reason="slow_consumer""#, "Frames dropped, by reason.";
    /// Frames dropped with a connection that went away.
    DroppedClosed => "ws_drops_total", r#"reason="closed""#, "Frames dropped, by reason.";
    /// Connections closed as too slow.
    SlowConsumers => "ws_slow_consumers_total", "", "Connections closed because they fell behind (4008).";
    /// Publications that slow subscribers, or those with a rate, did not get apart.
    Merged => "ws_merges_total", "", "Publications merged into a later one for a subscriber that was behind or has a rate.";
    /// Subscriptions that are owed a current value (gauge).
    SubscriptionsBehind => "ws_subscriptions_behind", "", "Subscriptions whose socket takes nothing: they get the current value when it does.";
    /// Connections that were owed kept publications beyond the bound.
    KeptLost => "ws_kept_lost_total", "", "Connections closed (4008) because kept publications that they were owed were over their bound.";
    /// Closed for silence.
    ClosedIdle => "ws_closes_total", r#"reason="idle""#, "Connections closed by the server, by reason.";
    /// Closed for breaking the protocol.
    ClosedProtocol => "ws_closes_total", r#"reason="protocol""#, "Connections closed by the server, by reason.";
    /// Closed for their rate.
    ClosedRate => "ws_closes_total", r#"reason="rate""#, "Connections closed by the server, by reason.";
    /// Closed without progress.
    ClosedStuck => "ws_closes_total", r#"reason="write_timeout""#, "Connections closed by the server, by reason.";
    /// Closed by a back-end's order or a newer connection of the user.
    ClosedOrdered => "ws_closes_total", r#"reason="ordered""#, "Connections closed by the server, by reason.";
    /// Closed because their token ended.
    ClosedExpired => "ws_closes_total", r#"reason="expired""#, "Connections closed by the server, by reason.";
    /// Closed because the node drains, and they had not left by themselves.
    ClosedDrained => "ws_closes_total", r#"reason="drain""#, "Connections closed by the server, by reason.";
    /// Connections told to move because the node drains.
    Moves => "ws_moves_total", "", "Connections that were told to move to another node, because this one drains.";
    /// Questions to the router that were answered with a node.
    Routed => "ws_routes_total", r#"result="answered""#, "Questions where to connect, by result.";
    /// Questions to the router when no node takes connections.
    RoutedNowhere => "ws_routes_total", r#"result="no_node""#, "Questions where to connect, by result.";
    /// Resumed subscriptions that waited until the node had heard what they hold.
    ResumesCaughtUp => "ws_resumes_ahead_total", r#"result="caught_up""#, "Subscriptions that resumed behind something which the node had not heard yet, by result.";
    /// Those that waited in vain.
    ResumesGivenUp => "ws_resumes_ahead_total", r#"result="given_up""#, "Subscriptions that resumed behind something which the node had not heard yet, by result.";
    /// Panics of connection tasks.
    Panics => "ws_panics_total", "", "Connections ended by a panic.";
    /// Accepts put off because of the file limit.
    AcceptsPaused => "ws_accept_pauses_total", "", "Times that accepting paused, because the file limit was reached.";
    /// Connections of projects that a reload has taken away.
    ClosedRemoved => "ws_closes_total", r#"reason="project_removed""#, "Connections closed by the server, by reason.";
    /// Subscriptions that a reload has taken away.
    SubscriptionsEnded => "ws_subscriptions_ended_total", "", "Subscriptions ended because the rules of a reload deny them.";
    /// Reloads that are in effect.
    ReloadsDone => "ws_reloads_total", r#"result="done""#, "Reloads of the configuration, by result.";
    /// Reloads that changed nothing because something was wrong.
    ReloadsRefused => "ws_reloads_total", r#"result="refused""#, "Reloads of the configuration, by result.";
    /// When the last good one was (gauge).
    ReloadTime => "ws_reload_success_timestamp_seconds", "", "When the configuration was reloaded last, Unix seconds; 0: never.";
    /// What the process may use (gauge).
    MemoryLimitBytes => "ws_memory_limit_bytes", "", "Memory that the process may use.";
    /// What it uses of that (gauge).
    MemoryUsedBytes => "ws_memory_used_bytes", "", "What is in use of ws_memory_limit_bytes.";
    /// How little is left (gauge).
    MemoryPressure => "ws_memory_pressure", "", "0: enough memory; 1: new connections are refused; 2: the largest outboxes are cut.";
    /// Connections refused for want of memory.
    MemoryRefused => "ws_memory_relief_total", r#"event="refused""#, "Connections refused, and closed with the largest outboxes, for want of memory.";
    /// Connections closed for want of memory.
    MemoryCut => "ws_memory_relief_total", r#"event="cut""#, "Connections refused, and closed with the largest outboxes, for want of memory.";
    /// Pushes accepted by this node.
    PushesAccepted => "ws_pushes_total", r#"result="accepted""#, "Pushes by result.";
    /// Pushes refused by this node.
    PushesRefused => "ws_pushes_total", r#"result="refused""#, "Pushes by result.";
    /// Pushes that were bad.
    PushesInvalid => "ws_pushes_total", r#"result="invalid""#, "Pushes by result.";
    /// Payloads above the guidance.
    PayloadsOverGuidance => "ws_payloads_over_guidance_total", "", "Payloads above 1460 bytes.";
    /// Records in the log.
    LogAppended => "ws_log_records_total", r#"event="appended""#, "Records of the log, by event.";
    /// Records appended again after the queue lost them.
    LogReplayed => "ws_log_records_total", r#"event="replayed""#, "Records of the log, by event.";
    /// Records heard.
    LogHeard => "ws_log_records_total", r#"event="heard""#, "Records of the log, by event.";
    /// Records heard a second time and passed over.
    LogDuplicate => "ws_log_records_total", r#"event="duplicate""#, "Records of the log, by event.";
    /// Records or batches that could not be read.
    LogPoison => "ws_log_records_total", r#"event="poison""#, "Records of the log, by event.";
    /// Records refused because the buffer was full or the wait over.
    LogRefused => "ws_log_records_total", r#"event="refused""#, "Records of the log, by event.";
    /// Times that the queue lost records for good.
    LogLost => "ws_log_losses_total", "", "Times that the queue lost records for good; subscribers were told.";
    /// New epochs met.
    LogEpochs => "ws_log_epochs_total", "", "New epochs of the log: the queue restarted, failed over or lost its data.";
    /// Reads from the cursor.
    LogCatchUps => "ws_log_catch_ups_total", "", "Reads from the cursor that found something the live channel had not brought.";
    /// Records that the node sent itself through the queue.
    CanariesSent => "ws_canaries_total", r#"event="sent""#, "Records that the node sent itself through the queue, to see that they come back.";
    /// Those that came back.
    CanariesHeard => "ws_canaries_total", r#"event="heard""#, "Records that the node sent itself through the queue, to see that they come back.";
    /// Shards through which nothing comes back (gauge).
    CanaryLateShards => "ws_canary_late_shards", "", "Shards of the queue through which the node's own record has not come back in time.";
    /// Bytes that wait for the queue (gauge).
    LogPendingBytes => "ws_log_pending_bytes", "", "Bytes that wait for the queue.";
    /// Times that the log waited for a core's inbox.
    InboxFull => "ws_inbox_full_total", "", "Times that hearing the log waited for a core.";
    /// Tags in the table (gauge).
    Tags => "ws_tags", "", "Tags with a last value.";
    /// Tags dropped from a full table.
    TagsEvicted => "ws_tags_evicted_total", "", "Tags dropped from the table because it was full.";
    /// Subscriptions closed (1013) because the table was full of tags that are followed.
    TagsRefused => "ws_tags_refused_total", "", "Subscribers closed because the table was full of followed tags.";
    /// Last values written into the queue's store.
    RetainedWritten => "ws_retained_values_total", r#"event="written""#, "Last values in the queue's store, by event.";
    /// Last values that the queue's store let go of, because there were too many.
    RetainedDropped => "ws_retained_values_total", r#"event="dropped""#, "Last values in the queue's store, by event.";
    /// Last values of which the log knew nothing, taken from the queue's store at the start.
    RetainedLoaded => "ws_retained_values_total", r#"event="loaded""#, "Last values in the queue's store, by event.";
    /// Last values in the queue's store that could not be read.
    RetainedUnreadable => "ws_retained_values_total", r#"event="unreadable""#, "Last values in the queue's store, by event.";
    /// Writes of last values that failed.
    RetainFailed => "ws_retained_writes_failed_total", "", "Writes of last values into the queue's store that failed; they are tried again.";
    /// Idempotency keys dropped before their window was over.
    KeysEvicted => "ws_idempotency_keys_evicted_total", "", "Idempotency keys forgotten early because there were too many.";
    /// Keyed pushes that a key known before answered or passed over.
    KeysRepeated => "ws_idempotency_repeats_total", "", "Pushes that were answered as an earlier one with the same idempotency key.";
    /// Questions to all nodes that were refused because too many were open.
    OnlineAsksRefused => "ws_online_asks_refused_total", "", "Questions for the online list refused because too many were open.";
    /// Requests refused because too many waited for an answer.
    RequestsOverloaded => "ws_requests_total", r#"result="overloaded""#, "Users' requests by result.";
    /// Other nodes' requests that are not counted for the choice of a back-end because there are too many.
    RequestsUncounted => "ws_requests_uncounted_total", "", "Other nodes' requests not counted as pending, because too many were.";
    /// Nodes that fell silent.
    NodesLost => "ws_nodes_lost_total", "", "Nodes that were not heard for too long; their back-ends were given up.";
    /// Requests to back-ends.
    Requests => "ws_requests_total", r#"result="sent""#, "Users' requests by result.";
    /// Requests answered.
    RequestsAnswered => "ws_requests_total", r#"result="answered""#, "Users' requests by result.";
    /// Requests without a back-end.
    RequestsNoBackend => "ws_requests_total", r#"result="no_backend""#, "Users' requests by result.";
    /// Requests that timed out.
    RequestsTimedOut => "ws_requests_total", r#"result="timeout""#, "Users' requests by result.";
    /// Requests whose back-end went away.
    RequestsBackendLost => "ws_requests_total", r#"result="backend_lost""#, "Users' requests by result.";
    /// Spans of traces that ended here.
    SpansEnded => "ws_trace_spans_total", r#"event="ended""#, "Spans of traced pushes, by event; what ended and was neither exported nor failed waits or was dropped.";
    /// Spans that the collector has taken.
    SpansExported => "ws_trace_spans_total", r#"event="exported""#, "Spans of traced pushes, by event; what ended and was neither exported nor failed waits or was dropped.";
    /// Spans that the collector has not taken.
    SpansFailed => "ws_trace_spans_total", r#"event="failed""#, "Spans of traced pushes, by event; what ended and was neither exported nor failed waits or was dropped.";
    /// HTTP requests that are being answered (gauge).
    HttpInFlight => "ws_http_in_flight", "", "HTTP requests that are being answered, probes aside.";
    /// HTTP requests refused at the door.
    HttpRejected => "ws_http_rejected_total", "", "HTTP requests refused by the guard.";
    /// Calls of the demo's feed that failed.
    DemoFailed => "ws_demo_failures_total", "", "Calls of the demo's own feed that failed; it goes on with what is current then.";
    /// CPU profiles and flame graphs.
    ProfilesTaken => "ws_profiles_total", "", "CPU profiles and flame graphs that were taken.";
    /// Samples that were lost because a buffer was full.
    ProfileSamplesDropped => "ws_profile_samples_dropped_total", "", "Samples of profiles that were lost because a buffer was full.";
    /// Log lines that need someone.
    LinesError => "ws_log_lines_total", r#"level="error""#, "Lines handed to the log, by level; lost ones included.";
    /// Log lines that may need someone.
    LinesWarn => "ws_log_lines_total", r#"level="warn""#, "Lines handed to the log, by level; lost ones included.";
    /// Log lines about the node.
    LinesInfo => "ws_log_lines_total", r#"level="info""#, "Lines handed to the log, by level; lost ones included.";
    /// Log lines about details.
    LinesDebug => "ws_log_lines_total", r#"level="debug""#, "Lines handed to the log, by level; lost ones included.";
    /// Log lines for which there was no room.
    LinesDropped => "ws_log_lines_dropped_total", "", "Log lines lost because their buffer was full.";
    /// Bytes of log lines that are not written yet (gauge).
    LinesBufferBytes => "ws_log_buffer_bytes", "", "Bytes of log lines that wait to be written.";
    /// Writes of log lines that failed.
    LinesWritesFailed => "ws_log_writes_failed_total", "", "Writes of log lines that failed or found no room; they are tried again.";
    /// Log files closed for a new one.
    LogFilesRotated => "ws_log_files_total", r#"event="rotated""#, "Log files, by event.";
    /// Rotations that failed; the old file goes on.
    LogFilesNotRotated => "ws_log_files_total", r#"event="rotation_failed""#, "Log files, by event.";
    /// Rotated log files compressed.
    LogFilesCompressed => "ws_log_files_total", r#"event="compressed""#, "Log files, by event.";
    /// Rotated log files that could not be compressed for now.
    LogFilesNotCompressed => "ws_log_files_total", r#"event="compression_failed""#, "Log files, by event.";
    /// Rotated log files removed as too many, too large or too old.
    LogFilesRemoved => "ws_log_files_total", r#"event="removed""#, "Log files, by event.";
    /// Errors and panics given to the Sentry client.
    ReportsSent => "ws_error_reports_total", r#"result="sent""#, "Errors and panics for Sentry, by result.";
    /// Errors and panics beyond the rate.
    ReportsOverRate => "ws_error_reports_total", r#"result="over_rate""#, "Errors and panics for Sentry, by result.";
    /// Errors and panics for which there was no room.
    ReportsOverflowed => "ws_error_reports_total", r#"result="overflow""#, "Errors and panics for Sentry, by result.";
    /// Whether io_uring drives the cores (gauge).
    DriverUring => "ws_driver", r#"driver="io_uring""#, "Cores by driver.";
    /// Whether epoll drives the cores (gauge).
    DriverEpoll => "ws_driver", r#"driver="epoll""#, "Cores by driver.";
}

/// The counters of one thread. Only that thread writes; anybody reads.
#[derive(Debug)]
#[repr(align(128))]
pub struct Counters {
    cells: [AtomicU64; Count::ALL.len()],
    requests: requests::Requests,
    latency: latency::Latency,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            cells: std::array::from_fn(|_| AtomicU64::new(0)),
            requests: requests::Requests::default(),
            latency: latency::Latency::default(),
        }
    }
}

impl Counters {
    /// Adds to a counter.
    pub fn add(&self, count: Count, n: u64) {
        let cell = &self.cells[count as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Adds to a counter that several threads write, with a locked instruction. A counter is written either so or by
    /// its one thread, never both.
    pub fn add_shared(&self, count: Count, n: u64) {
        self.cells[count as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn inc(&self, count: Count) {
        self.add(count, 1);
    }

    /// Takes from a gauge.
    pub fn sub(&self, count: Count, n: u64) {
        let cell = &self.cells[count as usize];
        cell.store(cell.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, count: Count, value: u64) {
        self.cells[count as usize].store(value, Ordering::Relaxed);
    }

    /// Reads a counter.
    pub fn get(&self, count: Count) -> u64 {
        self.cells[count as usize].load(Ordering::Relaxed)
    }

    /// How old pushes are at the thread's stages of their way.
    pub fn latency(&self) -> &latency::Latency {
        &self.latency
    }

    /// The thread's HTTP requests.
    pub fn requests(&self) -> &requests::Requests {
        &self.requests
    }
}

#[expect(clippy::disallowed_types, reason = "taken once a thread at start and once a scrape, never on a hot path")]
type Lock<T> = std::sync::Mutex<T>;

/// All threads' counters, for the scrape.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Lock<Vec<Thread>>>);

/// A label and its counters.
type Thread = (String, Arc<Counters>);

impl Registry {
    /// Counters for one thread; `core` is the label: the core's number, or the thread's name.
    pub fn register(&self, core: &str) -> Arc<Counters> {
        let counters = Arc::<Counters>::default();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((core.to_owned(), counters.clone()));
        counters
    }

    /// Every thread's label and counters.
    pub fn threads(&self) -> Vec<(String, Arc<Counters>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
