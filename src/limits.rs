//! Every bound of the node with its unit and default, in one place. The numbers are those of `docs/config.md`.
//!
//! Invariant: no queue, table or size without a line here.

use std::time::Duration;

/// Bounds on opening a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpeningLimits {
    /// From accept to the complete head; absolute, bytes do not move it.
    pub handshake_timeout: Duration,
    /// Request line and headers together.
    pub head_bytes_max: usize,
    /// Headers.
    pub headers_max: usize,
    /// Request target.
    pub target_bytes_max: usize,
    /// Open connections from one address; 0 = no bound.
    pub connections_per_address: usize,
    /// Open connections of one uid on a node; 0 = no bound.
    pub connections_per_uid: usize,
    /// Over [`OpeningLimits::connections_per_uid`]: close the oldest (4409) instead of refusing the new one (4429).
    pub kick_oldest: bool,
    /// Open connections of a node; the file limit may lower it to 80 % of itself.
    pub connections_max: usize,
    /// Accepts a second and core, with a burst of as many.
    pub accepts_per_second: u32,
    /// Failed credentials a minute and address; beyond: 429 without an upgrade.
    pub failed_credentials_per_minute: u32,
    /// How far ahead `exp` of a user's connect may be.
    pub sign_horizon_connect: Duration,
    /// How far ahead `exp` of an HTTP call may be.
    pub sign_horizon_push: Duration,
}

/// Bounds on what a connection may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// A message from a user.
    pub user_message_bytes_max: usize,
    /// A message from a back-end.
    pub backend_message_bytes_max: usize,
    /// Fragments of one message.
    pub fragments_max: usize,
    /// From a message's first fragment to its last.
    pub fragments_timeout: Duration,
    /// Messages a second from a user.
    pub messages_per_second: u32,
    /// Messages that may come at once from a user.
    pub messages_burst: u32,
    /// Pings, pongs and closes a second.
    pub control_frames_per_second: u32,
    /// Bytes a second from a user.
    pub bytes_per_second: u32,
    /// Messages a second from a back-end.
    pub backend_messages_per_second: u32,
    /// How long reading pauses for a sender over its rate before it is closed (1008).
    pub rate_pause_max: Duration,
    /// Bytes of one connection handled before others get their turn.
    pub turn_bytes_max: usize,
    /// Frames of one connection handled before others get their turn.
    pub turn_frames_max: usize,
    /// Nesting of JSON.
    pub json_depth_max: usize,
    /// Bad messages in a row before a close (1008).
    pub bad_messages_max: u32,
    /// Tags a connection may be subscribed to.
    pub tags_per_connection: usize,
    /// Members of an audience.
    pub audience_max: usize,
    /// A push's payload.
    pub push_bytes_max: usize,
}

/// Bounds on what waits to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritingLimits {
    /// Bytes that wait for one connection.
    pub outbox_bytes_max: usize,
    /// Frames that wait for one connection.
    pub outbox_frames_max: usize,
    /// Bytes that wait for all connections of a node together; 0 = a quarter of the memory.
    pub outboxes_bytes_max: usize,
    /// Of kept publications that somebody who is behind is owed, of one tag on one core.
    pub kept_bytes_max: usize,
    /// Waiting bytes without progress: reset.
    pub write_timeout: Duration,
    /// Sent bytes that the peer does not acknowledge for so long end the connection (`TCP_USER_TIMEOUT`).
    pub unacknowledged_timeout: Duration,
    /// Unsent bytes in the kernel from which on a socket takes no more (`TCP_NOTSENT_LOWAT`); 0: the kernel's default.
    pub notsent_lowat_bytes: usize,
    /// Bytes in the kernel, sent and not acknowledged ones included (`SO_SNDBUF`); 0: as the kernel tunes it.
    pub send_buffer_bytes: usize,
    /// One write to a socket.
    pub write_bytes_max: usize,
    /// Connections a fan-out serves before others get their turn.
    pub walk_slice: usize,
    /// Payloads above this are counted and reported to their publisher.
    pub payload_guidance_bytes: usize,
}

/// Bounds on a connection's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifeLimits {
    /// Silence before the server pings.
    pub ping_after: Duration,
    /// Silence after that ping before a close (4408).
    pub pong_timeout: Duration,
    /// From a close frame to the end of the TCP connection, whatever the peer does.
    pub close_timeout: Duration,
    /// What clients are told to keep between two `heart`.
    pub heartbeat: Duration,
    /// From SIGTERM to the last close.
    pub drain: Duration,
}

/// Bounds on the way through the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Records that wait for the queue, in bytes.
    pub pending_bytes_max: usize,
    /// How long a record waits for the queue before it is refused.
    pub pending_timeout: Duration,
    /// One append.
    pub batch_bytes_max: usize,
    /// Records of one append.
    pub batch_records_max: usize,
    /// How long what the queue has acknowledged is kept for a queue that loses its data.
    pub replay_window: Duration,
    /// The same in bytes.
    pub replay_bytes_max: usize,
    /// The log's length in the queue, in bytes.
    pub log_bytes_max: usize,
    /// Messages in a core's inbox before the node stops hearing the log.
    pub inbox_messages_max: usize,
    /// Messages from the cores that wait for the exchange.
    pub exchange_inbox_max: usize,
    /// Requests that wait for an answer, in the whole cluster.
    pub requests_pending_max: usize,
    /// A request without `timeout_ms`.
    pub request_timeout: Duration,
    /// The longest `timeout_ms`.
    pub request_timeout_max: Duration,
    /// How long an idempotency key is remembered.
    pub idempotency_window: Duration,
    /// Idempotency keys that are remembered.
    pub idempotency_keys_max: usize,
    /// Tags that are remembered.
    pub tags_max: usize,
    /// How long the ring of publications, all tags together, may be in bytes.
    pub tag_table_bytes_max: usize,
    /// Last values that the queue keeps for nodes that start, in bytes, all shards together; 0: none.
    pub retained_bytes_max: usize,
    /// How long the node's own record may be on its way through the queue while the node is ready.
    pub canary_timeout: Duration,
}

/// Bounds on the HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// Request line and headers together.
    pub head_bytes_max: usize,
    /// Headers.
    pub headers_max: usize,
    /// Request target.
    pub target_bytes_max: usize,
    /// A body.
    pub body_bytes_max: usize,
    /// From the first byte of a head to its end.
    pub head_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// An idle kept-alive connection.
    pub idle_timeout: Duration,
    /// Writing one answer.
    pub write_timeout: Duration,
    /// The exchange's answer to one question; longer than a record may wait for the queue.
    pub answer_timeout: Duration,
    /// Requests in flight a core; more: 503.
    pub in_flight_max: usize,
    /// Connections a core to the HTTP listener.
    pub connections_max: usize,
    /// Lines of a batch.
    pub batch_lines_max: usize,
    /// Users on a page of `/v1/online`.
    pub online_page_max: usize,
}

/// Bounds on the process's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLimits {
    /// What the process may use, in bytes; 0 = what its cgroup or the machine has.
    pub memory_max_bytes: usize,
    /// Of that so much in use: no new connections (503).
    pub memory_soft_percent: u32,
    /// Of that so much in use: the largest outboxes are cut (4008).
    pub memory_hard_percent: u32,
}

/// Compression of messages (permessage-deflate).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressionLimits {
    /// Whether it is agreed on with clients that offer it.
    pub deflate: bool,
    /// From 1 (fast) to 9 (small).
    pub deflate_level: u32,
    /// Messages below this go plain, in bytes.
    pub deflate_bytes_min: usize,
    /// Messages above this go plain, in bytes: a core does nothing else while it compresses one.
    pub deflate_bytes_max: usize,
}

/// Bounds on logs and on reports of errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Lines that wait to be written, in bytes; beyond: lost and counted.
    pub log_buffer_bytes_max: usize,
    /// A log file is closed for a new one before it is longer; 0: whatever its length.
    pub log_rotate_bytes: u64,
    /// Rotated log files that are kept; 0: any number.
    pub log_keep_files: usize,
    /// Their bytes together; 0: any number.
    pub log_keep_bytes: u64,
    /// Their age; 0: any.
    pub log_keep_age: Duration,
    /// Errors and panics reported to Sentry a minute.
    pub sentry_events_per_minute: u32,
}

/// All bounds together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Opening a connection.
    pub opening: OpeningLimits,
    /// What a connection may send.
    pub frames: FrameLimits,
    /// What waits to be written.
    pub writing: WritingLimits,
    /// A connection's life.
    pub life: LifeLimits,
    /// The way through the queue.
    pub queue: QueueLimits,
    /// The HTTP API.
    pub http: HttpLimits,
    /// The process's memory.
    pub memory: MemoryLimits,
    /// Compression of messages.
    pub compression: CompressionLimits,
    /// Logs and reports of errors.
    pub logs: LogLimits,
}

impl WritingLimits {
    /// What a slow socket is given of current values at a time: they age in the kernel.
    pub fn slow_write_bytes(&self) -> usize {
        if self.notsent_lowat_bytes == 0 { self.write_bytes_max } else { self.notsent_lowat_bytes }
    }
}

impl Default for OpeningLimits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            head_bytes_max: 8 << 10,
            headers_max: 64,
            target_bytes_max: 4 << 10,
            connections_per_address: 64,
            connections_per_uid: 8,
            kick_oldest: false,
            connections_max: 200_000,
            accepts_per_second: 500,
            failed_credentials_per_minute: 10,
            sign_horizon_connect: Duration::from_secs(86_400),
            sign_horizon_push: Duration::from_secs(600),
        }
    }
}

impl Default for FrameLimits {
    fn default() -> Self {
        Self {
            user_message_bytes_max: 64 << 10,
            backend_message_bytes_max: 1 << 20,
            fragments_max: 1024,
            fragments_timeout: Duration::from_secs(30),
            messages_per_second: 50,
            messages_burst: 100,
            control_frames_per_second: 20,
            bytes_per_second: 256 << 10,
            backend_messages_per_second: 20_000,
            rate_pause_max: Duration::from_secs(1),
            turn_bytes_max: 64 << 10,
            turn_frames_max: 128,
            json_depth_max: 32,
            bad_messages_max: 10,
            tags_per_connection: 256,
            audience_max: 10_000,
            push_bytes_max: 1 << 20,
        }
    }
}

impl Default for WritingLimits {
    fn default() -> Self {
        Self {
            outbox_bytes_max: 1 << 20,
            outbox_frames_max: 1024,
            outboxes_bytes_max: 0,
            kept_bytes_max: 256 << 10,
            write_timeout: Duration::from_secs(10),
            unacknowledged_timeout: Duration::from_secs(20),
            notsent_lowat_bytes: 4 << 10,
            send_buffer_bytes: 256 << 10,
            write_bytes_max: 64 << 10,
            walk_slice: 128,
            payload_guidance_bytes: 1460,
        }
    }
}

impl Default for LifeLimits {
    fn default() -> Self {
        Self {
            ping_after: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(8),
            drain: Duration::from_secs(20),
        }
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            pending_bytes_max: 64 << 20,
            pending_timeout: Duration::from_secs(3),
            batch_bytes_max: 1 << 20,
            batch_records_max: 512,
            replay_window: Duration::from_secs(30),
            replay_bytes_max: 256 << 20,
            log_bytes_max: 256 << 20,
            inbox_messages_max: 65_536,
            exchange_inbox_max: 65_536,
            requests_pending_max: 65_536,
            request_timeout: Duration::from_secs(10),
            request_timeout_max: Duration::from_secs(60),
            idempotency_window: Duration::from_secs(300),
            idempotency_keys_max: 131_072,
            tags_max: 1 << 20,
            tag_table_bytes_max: 1 << 30,
            retained_bytes_max: 256 << 20,
            canary_timeout: Duration::from_secs(3),
        }
    }
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 << 10,
            headers_max: 64,
            target_bytes_max: 8 << 10,
            body_bytes_max: 1 << 20,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(15),
            in_flight_max: 256,
            connections_max: 1024,
            batch_lines_max: 1000,
            online_page_max: 1000,
        }
    }
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { memory_max_bytes: 0, memory_soft_percent: 70, memory_hard_percent: 85 }
    }
}

impl Default for CompressionLimits {
    fn default() -> Self {
        Self { deflate: true, deflate_level: 3, deflate_bytes_min: 256, deflate_bytes_max: 64 << 10 }
    }
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            log_buffer_bytes_max: 8 << 20,
            log_rotate_bytes: 64 << 20,
            log_keep_files: 30,
            log_keep_bytes: 1 << 30,
            log_keep_age: Duration::from_secs(30 * 86_400),
            sentry_events_per_minute: 60,
        }
    }
}

/// A part of the online list sent to back-ends holds at most so many users.
pub const ONLINE_CLIENTS_MAX: usize = 1000;
/// How often each node sends its online list.
pub const ONLINE_INTERVAL: Duration = Duration::from_secs(10);
/// How often each node sends its sign of life.
pub const BEAT_INTERVAL: Duration = Duration::from_secs(2);
/// A node that has not been heard for so long is gone, and its back-ends with it.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(15);
/// No client is routed to a node that was not heard for so long.
pub const ROUTE_SILENCE_MAX: Duration = Duration::from_secs(5);
/// A node's public address in its sign of life, in bytes.
pub const ADDR_BYTES_MAX: usize = 255;
/// How often a node sends itself a record through the log, to see that it comes back.
pub const CANARY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a subscriber that resumes behind something which its node has not heard yet waits for that.
pub const RESUME_WAIT_MAX: Duration = Duration::from_secs(2);
/// Such subscriptions of a node that wait; beyond: they are answered at once, perhaps with a gap.
pub const RESUMES_WAITING_MAX: usize = 4096;
/// From a connection's time to move to the close that follows (1012) at most; a short `drain` gives less.
pub const MOVE_MARGIN_MAX: Duration = Duration::from_secs(2);
/// Connections that are told to move, or closed by a drain, before others get their turn.
pub const MOVES_PER_TURN: usize = 256;
/// How long a node that drains waits for answers of its HTTP API that are under way, when everything else is done.
pub const LAST_ANSWERS_MAX: Duration = Duration::from_secs(1);
/// How long a node that drains waits for its log to be flushed and its lease to be given up.
pub const LOG_CLOSE_MAX: Duration = Duration::from_secs(5);
/// How long a question to all nodes waits for the last answer.
pub const ONLINE_ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Questions to all nodes that may be open at once.
pub const ONLINE_ASKS_MAX: usize = 256;
/// Bytes of chunk extensions, and of trailers, of one chunked body.
pub const CHUNK_EXTRAS_BYTES_MAX: usize = 4 << 10;
/// Addresses with failed credentials that a core remembers for a minute; beyond: the oldest is forgotten.
pub const FAILED_ADDRESSES_MAX: usize = 4096;
/// Connections over the bound that a core answers with 503 at once; beyond: they are closed without an answer.
pub const HTTP_REFUSALS_MAX: usize = 64;
/// How long accepting pauses when the file limit is reached.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that a core accepts, and whose begin or end it handles, before all else on it gets a turn.
pub const OPENINGS_PER_TURN: usize = 16;
/// How often the process's memory is measured.
pub const MEMORY_LOOK: Duration = Duration::from_millis(200);
/// A memory threshold is left only so many percent below it, so that it is not crossed to and fro.
pub const MEMORY_SLACK_PERCENT: u32 = 5;
/// Outboxes that a core names as its largest, to be cut at a time.
pub const MEMORY_CUTS_MAX: usize = 256;
/// Smaller outboxes are not cut, in bytes: what fills the memory then is something else.
pub const MEMORY_CUT_BYTES_MIN: usize = 4 << 10;
/// How long a core may take to answer or to carry out what the node's own threads ask of it; they go on without it then.
pub const ORDER_TIMEOUT: Duration = Duration::from_secs(5);
/// Secrets that no report of an error may hold; beyond: those of earlier configurations are forgotten.
pub const SCRUBBED_SECRETS_MAX: usize = 4096;
/// A batch that a node is willing to read from the queue, in bytes. Above [`QueueLimits::batch_bytes_max`], because
/// a single push with a long audience makes a batch of its own.
pub const WIRE_BATCH_BYTES_MAX: usize = 64 << 20;
/// An `affair_id` or `idempotency_key`, in bytes.
pub const AFFAIR_ID_BYTES_MAX: usize = 256;
/// Questions of one user's connection about what it holds (`crc`) that wait for the exchange; beyond: refused.
pub const CHECKS_WAITING_MAX: usize = 4;
/// Payloads that one such question has summed up, in bytes; the first one whatever it has, further ones are denied.
pub const CHECKED_BYTES_MAX: usize = 1 << 20;
/// A token (JWT), in bytes.
pub const TOKEN_BYTES_MAX: usize = 4 << 10;
/// Parameters of a query or form.
pub const PARAMS_MAX: usize = 64;
/// Events of the log (records heard, outcomes of appends) that wait for the node.
pub const LOG_EVENTS_MAX: usize = 8192;
/// The same in bytes; one event may go beyond it.
pub const LOG_EVENTS_BYTES_MAX: usize = 16 << 20;
/// From the begin of an append of several records to that of the next: what gathers meanwhile shares an append's cost.
pub const LOG_GATHER: Duration = Duration::from_micros(500);
/// Live messages that wait between the queue's connection and the shards.
pub const LOG_LIVE_MESSAGES_MAX: usize = 8192;
/// How long a new epoch takes nothing but what the last one held.
pub const LOG_GRACE: Duration = Duration::from_millis(500);
/// Silence after which the log is read from the cursor; doubles up to [`LOG_SILENCE_MAX`] while nothing comes.
pub const LOG_SILENCE_MIN: Duration = Duration::from_millis(100);
/// See [`LOG_SILENCE_MIN`]; also how often an idle publisher makes sure of its epoch.
pub const LOG_SILENCE_MAX: Duration = Duration::from_secs(1);
/// So many times in a row may silence end in entries that the live channel has not brought; then it is asked for anew.
pub const LOG_DEAF_MAX: u32 = 5;
/// First pause after a failed call to the queue; doubles up to [`LOG_RETRY_MAX`].
pub const LOG_RETRY_MIN: Duration = Duration::from_millis(20);
/// See [`LOG_RETRY_MIN`].
pub const LOG_RETRY_MAX: Duration = Duration::from_millis(500);
/// The queue counts as down when calls have failed for so long.
pub const LOG_DOWN_AFTER: Duration = Duration::from_millis(500);
/// One page of a read from the log, in bytes; pages are counted in entries, so this is aimed at, not kept.
pub const LOG_PAGE_BYTES: usize = 4 << 20;
/// One page of a read from the log, in entries.
pub const LOG_PAGE_ENTRIES_MAX: usize = 1024;
/// Origins whose last record is remembered.
pub const LOG_ORIGINS_MAX: usize = 65_536;
/// An origin that was idle for so long is given up for a new one.
pub const LOG_ORIGIN_IDLE_MAX: Duration = Duration::from_secs(3600);
/// The queue forgets an origin that was idle for so long.
pub const LOG_ORIGIN_KEPT: Duration = Duration::from_secs(86_400);
/// Entries of the log in the queue, whatever their bytes.
pub const LOG_ENTRIES_MAX: usize = 1_000_000;
/// What the embedded queue keeps of each shard behind its readers, in bytes, for a second reader in the same process.
pub const LOG_MEMORY_KEPT_BYTES: usize = 256 << 10;
/// A tag's last value is written into the queue's store at most once in this time. Far shorter than what the log
/// holds, in time, so that what the log lets go of is in the store.
pub const RETAIN_INTERVAL: Duration = Duration::from_secs(1);
/// Last values that are written together, ten times a second at most. Redis does nothing else for about 10 us a value,
/// and appends wait for it meanwhile.
pub const RETAIN_VALUES_MAX: usize = 512;
/// The same in bytes; one value may go beyond it.
pub const RETAIN_BYTES_MAX: usize = 1 << 20;
/// What a last value counts for in the queue's store besides its bytes and its name, which stands there twice.
pub const RETAINED_OVERHEAD_BYTES: usize = 128;
/// A last value that a node is willing to read from the queue's store: the longest push and what goes with it, in bytes.
pub const RETAINED_VALUE_BYTES_MAX: usize = 17 << 20;
/// Shards of a log.
pub const LOG_SHARDS_MAX: u16 = 64;
/// How long a node's lease on its id lasts.
pub const LEASE_TTL: Duration = Duration::from_secs(10);
/// How often it is renewed.
pub const LEASE_RENEW: Duration = Duration::from_secs(3);
/// Spans of traces that wait to be exported; beyond: they are dropped, which `ws_trace_spans_total` shows.
pub const TRACE_SPANS_MAX: usize = 4096;
/// Spans wait for company at most so long.
pub const TRACE_EXPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How long the collector may take for one export.
pub const TRACE_EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// A collector's answer, in bytes.
pub const TRACE_ANSWER_BYTES_MAX: u64 = 64 << 10;
/// How long a node that ends waits for its last traces to be exported.
pub const TRACE_FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Closed bars that the demo's history tag holds.
pub const DEMO_BARS_MAX: usize = 240;
/// How long one call of the demo's feed may take.
pub const DEMO_CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause of the demo's feed after a call that failed.
pub const DEMO_RETRY: Duration = Duration::from_secs(1);
/// An answer that the demo's feed is willing to read, in bytes.
pub const DEMO_ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Samples of a second of a thread's CPU time, as Go's profiler takes them. The kernel's tick, 250 a second or more, bounds what
/// could be seen.
pub const PROFILE_HZ: u32 = 100;
/// A profile without `seconds`.
pub const PROFILE_SECONDS_DEFAULT: u64 = 30;
/// The longest profile.
pub const PROFILE_SECONDS_MAX: u64 = 60;
/// Samples between the threads that are interrupted and the one that gathers; beyond: dropped and counted. At
/// [`PROFILE_HZ`] 64 busy cores fill it in 0.6 s.
pub const PROFILE_SAMPLES_WAITING_MAX: usize = 4096;
/// How often they are gathered.
pub const PROFILE_GATHER_INTERVAL: Duration = Duration::from_millis(50);
/// How often a profile looks for new threads.
pub const PROFILE_THREADS_INTERVAL: Duration = Duration::from_millis(250);
/// Threads that are looked at; the youngest beyond are not.
pub const PROFILE_THREADS_MAX: usize = 1024;
/// Addresses of one sample; what is further out is cut off.
pub const PROFILE_DEPTH_MAX: usize = 127;
/// Different stacks of one profile; beyond: dropped and counted.
pub const PROFILE_STACKS_MAX: usize = 65_536;
/// How long the list of threads waits for their stacks.
pub const THREAD_STACK_TIMEOUT: Duration = Duration::from_millis(250);
/// Addresses that are named in one request.
pub const SYMBOLS_MAX: usize = 1024;
/// User text in a log line or an error message.
pub const USER_TEXT_BYTES_MAX: usize = 256;
/// The message of a log line, which the program itself wrote.
pub const LOG_MESSAGE_BYTES_MAX: usize = 2 << 10;
/// A log line; what is longer is cut.
pub const LOG_LINE_BYTES_MAX: usize = 16 << 10;
/// First pause after a log line could not be written; doubles up to [`LOG_WRITE_RETRY_MAX`].
pub const LOG_WRITE_RETRY_MIN: Duration = Duration::from_millis(10);
/// See [`LOG_WRITE_RETRY_MIN`].
pub const LOG_WRITE_RETRY_MAX: Duration = Duration::from_millis(500);
/// Pause after a rotation that failed; the old file goes on meanwhile.
pub const LOG_ROTATE_RETRY: Duration = Duration::from_secs(10);
/// How often it is looked whether somebody has moved the log file away.
pub const LOG_FILE_LOOK: Duration = Duration::from_secs(1);
/// How often old log files are looked at when none was rotated.
pub const LOG_TIDY_INTERVAL: Duration = Duration::from_secs(600);
/// Directives of a log level (`info,ws_cluster::broker=debug`), in bytes.
pub const LOG_DIRECTIVES_BYTES_MAX: usize = 1 << 10;
/// Errors and panics that wait for the thread that reports them; beyond: counted.
pub const REPORTS_WAITING_MAX: usize = 256;
/// Errors and panics that may be reported at once.
pub const REPORTS_BURST: u32 = 20;
/// After so long without an error the program's names, which were read for its stack, are let go of.
pub const REPORTS_REST_AFTER: Duration = Duration::from_secs(10);
/// Frames of a reported stack.
pub const REPORT_FRAMES_MAX: usize = 96;
/// One report's way to Sentry.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process that ends waits for its last log lines, and as long again for its last reports.
pub const LAST_WORDS_MAX: Duration = Duration::from_secs(2);
/// The same when a core has died, both together: the process must be gone within a second.
pub const LAST_WORDS_OF_A_CORE_MAX: Duration = Duration::from_millis(900);

const _: () = assert!(BEAT_INTERVAL.as_millis() * 4 < NODE_TIMEOUT.as_millis());
const _: () = assert!(LEASE_RENEW.as_millis() * 3 < LEASE_TTL.as_millis());
const _: () = assert!(LOG_ORIGIN_IDLE_MAX.as_secs() < LOG_ORIGIN_KEPT.as_secs());
const _: () = assert!(BEAT_INTERVAL.as_millis() * 2 < ROUTE_SILENCE_MAX.as_millis());
