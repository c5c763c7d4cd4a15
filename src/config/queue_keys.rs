//! The keys of the bounds on the queue and on the HTTP API.

use super::{
    keys::{Key, Section, live},
    value::Unit::{Bytes, Of, Time},
};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub(super) static SECTIONS: &[Section] = &[QUEUE, REQUESTS, HTTP];

const QUEUE: Section = Section {
    title: "Limits: the way through the queue",
    limits: true,
    keys: &live([
        Key::number("pending_bytes_max", Bytes, MIB, 64 * GIB, |c| &mut c.limits.queue.pending_bytes_max)
            .is("Records that wait for the queue; more: 503.")
            .extremes(
                "Short stalls of the queue refuse pushes.",
                "A long stall takes memory, and then a burst of old pushes.",
            ),
        Key::number("pending_timeout", Time, 10, 10 * MINUTE, |c| &mut c.limits.queue.pending_timeout)
            .is("How long a record waits for the queue before it is refused (503).")
            .extremes("A fail-over of the queue refuses pushes.", "Publishers wait long for a no."),
        Key::number("batch_bytes_max", Bytes, 64 * KIB, 64 * MIB, |c| &mut c.limits.queue.batch_bytes_max)
            .is("One append. At least `push_bytes_max`.")
            .extremes("More appends for the same records.", "One append takes long, and what is behind it waits."),
        Key::number("batch_records_max", Of("records"), 1, 65_536, |c| &mut c.limits.queue.batch_records_max)
            .is("Records of one append.")
            .extremes("More appends for the same records.", "One append takes long, and what is behind it waits."),
        Key::number("replay_window", Time, 0, HOUR, |c| &mut c.limits.queue.replay_window)
            .is("How long what the queue has acknowledged is kept, to be appended again to a queue that lost its data.")
            .extremes("A queue that comes back empty has lost pushes.", "More memory, and a long replay."),
        Key::number("replay_bytes_max", Bytes, MIB, 64 * GIB, |c| &mut c.limits.queue.replay_bytes_max)
            .is("The same in bytes; what is reached first counts.")
            .extremes("The window is shorter than it says (there is a metric).", "More memory."),
        Key::number("log_bytes_max", Bytes, MIB, 1 << 40, |c| &mut c.limits.queue.log_bytes_max)
            .at_restart().is("The logs' length in the queue.")
            .extremes("A node that was away comes back to a gap.", "The queue's memory."),
        Key::number("inbox_messages_max", Of("messages"), 64, 16_777_216, |c| &mut c.limits.queue.inbox_messages_max)
            .at_restart().is("Messages in a core's inbox before the node stops hearing the queue.")
            .extremes("One slow core delays all.", "A slow core's memory, and older messages."),
        Key::number("exchange_inbox_max", Of("messages"), 64, 16_777_216, |c| &mut c.limits.queue.exchange_inbox_max)
            .at_restart().is("Messages from the cores that wait for the exchange; more are refused (503).")
            .extremes("Bursts of pushes are refused.", "Memory, and older messages."),
        Key::number("idempotency_window", Time, SECOND, 24 * HOUR, |c| &mut c.limits.queue.idempotency_window)
            .is("How long an idempotency key is remembered. At least `pending_timeout`.")
            .extremes("A late retry is delivered twice.", "More keys to remember."),
        Key::number("idempotency_keys_max", Of("keys"), 1, 16_777_216, |c| &mut c.limits.queue.idempotency_keys_max)
            .is("Idempotency keys that are remembered; the oldest give way.")
            .extremes("A retry is delivered twice though it is inside the window.", "More memory."),
        Key::number("tags_max", Of("tags"), 1, 100_000_000, |c| &mut c.limits.queue.tags_max)
            .is("Tags whose last value is remembered; the least recently published that nobody follows give way.")
            .extremes("Quiet tags have no snapshot.", "More memory."),
        Key::number("tag_table_bytes_max", Bytes, MIB, 1 << 40, |c| &mut c.limits.queue.tag_table_bytes_max)
            .is("What all tags' publications take together. At least `history.bytes` of every tag rule.")
            .extremes(
                "Quiet tags have no snapshot, rings are shorter than their rules.",
                "The node may run out of memory.",
            ),
        Key::number("retained_bytes_max", Bytes, MIB, 1 << 40, |c| &mut c.limits.queue.retained_bytes_max)
            .or_zero("nothing is retained")
            .is("Last values that the queue keeps, at most `tags_max` of them, for nodes that start when its log no longer holds them; those published longest ago give way. The embedded queue keeps none.")
            .extremes("After a restart quiet tags have no snapshot.", "The queue's memory."),
        Key::number("canary_timeout", Time, 500, 10 * MINUTE, |c| &mut c.limits.queue.canary_timeout)
            .at_restart()
            .is("How long the record that a node sends itself through each shard of the queue may take while the node is ready; it sends one a second.")
            .extremes("A slow moment of the queue takes every node out of the balance.", "A queue that stands still is noticed late."),
    ]),
};

const REQUESTS: Section = Section {
    title: "Limits: requests to back-ends",
    limits: true,
    keys: &live([
        Key::number("requests_pending_max", Of("requests"), 1, 16_777_216, |c| {
            &mut c.limits.queue.requests_pending_max
        })
        .is("Requests that wait for an answer, in the whole cluster; more are refused (`overloaded`).")
        .extremes("Slow back-ends refuse users early.", "More memory on every node."),
        Key::number("request_timeout", Time, 100, HOUR, |c| &mut c.limits.queue.request_timeout)
            .is("How long a request without `timeout_ms` waits. At most `request_timeout_max`.")
            .extremes("Honest answers come too late.", "Users wait long for a no."),
        Key::number("request_timeout_max", Time, 100, 24 * HOUR, |c| &mut c.limits.queue.request_timeout_max)
            .is("The longest `timeout_ms`.")
            .extremes("Long-running requests cannot be asked.", "Requests that nobody answers stay for longer."),
    ]),
};

const HTTP: Section = Section {
    title: "Limits: the HTTP API",
    limits: true,
    keys: &live([
        Key::number("http_head_bytes_max", Bytes, KIB, 256 * KIB, |c| &mut c.limits.http.head_bytes_max)
            .is("Request line and headers together; more is a 431.")
            .extremes("Pushes in a query no longer fit.", "Each opening request may take that much memory."),
        Key::number("http_headers_max", Of("headers"), 8, 256, |c| &mut c.limits.http.headers_max)
            .is("Headers; more is a 431.")
            .extremes("Callers behind proxies that add headers get 431.", "More work before anyone is known."),
        Key::number("http_target_bytes_max", Bytes, 256, 256 * KIB, |c| &mut c.limits.http.target_bytes_max)
            .is("The request target, with its query; more is a 414.")
            .extremes("Pushes in a query no longer fit: 414.", "More work before anyone is known."),
        Key::number("http_body_bytes_max", Bytes, KIB, 64 * MIB, |c| &mut c.limits.http.body_bytes_max)
            .is("A body; more is a 413.")
            .extremes("Large pushes and batches are refused.", "Each request in flight may take that much memory."),
        Key::number("http_head_timeout", Time, 100, 10 * MINUTE, |c| &mut c.limits.http.head_timeout)
            .is("From the first byte of a head to its end.")
            .extremes("Callers on slow links get 408.", "A slow sender holds a place for longer."),
        Key::number("http_body_timeout", Time, 100, 10 * MINUTE, |c| &mut c.limits.http.body_timeout)
            .is("From the end of the head to the end of the body.")
            .extremes("Callers on slow links get 408.", "A slow sender holds a place for longer."),
        Key::number("http_idle_timeout", Time, 100, HOUR, |c| &mut c.limits.http.idle_timeout)
            .is("An idle kept-alive connection.")
            .extremes("Callers connect anew for every push.", "Idle callers hold places."),
        Key::number("http_write_timeout", Time, 100, 10 * MINUTE, |c| &mut c.limits.http.write_timeout)
            .is("Writing one answer.")
            .extremes(
                "Callers on slow links lose their answer.",
                "A caller that does not read holds a place for longer.",
            ),
        Key::number("http_answer_timeout", Time, 100, HOUR, |c| &mut c.limits.http.answer_timeout)
            .is("The node's own answer to a call; 503 when it does not come. At least `pending_timeout`.")
            .extremes("Callers are told 503 for what is accepted a moment later.", "Callers wait long for a no."),
        Key::number("http_in_flight_max", Of("requests a core"), 1, 1_000_000, |c| &mut c.limits.http.in_flight_max)
            .is("Requests in flight; more: 503.")
            .extremes("Bursts are refused.", "Memory, and everyone waits."),
        Key::number("http_connections_max", Of("connections a core"), 1, 1_000_000, |c| {
            &mut c.limits.http.connections_max
        })
        .is("Connections to the HTTP listener.")
        .extremes("Callers cannot connect.", "Memory and file descriptors."),
        Key::number("http_batch_lines_max", Of("lines"), 1, 1_000_000, |c| &mut c.limits.http.batch_lines_max)
            .is("Lines of a batch of pushes.")
            .extremes("Batches must be split.", "One call takes long while others wait."),
        Key::number("http_online_page_max", Of("users"), 1, 100_000, |c| &mut c.limits.http.online_page_max)
            .is("Users on a page of `/v1/online`.")
            .extremes("Many calls for a whole list.", "One answer takes much memory on every node."),
    ]),
};
