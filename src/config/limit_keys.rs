//! The keys of the bounds on connections: opening, what they may send, what waits for them, their life.

use super::{
    keys::{Key, Section, live},
    value::Unit::{Bytes, Of, Time},
};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

pub(super) static SECTIONS: &[Section] = &[OPENING, FRAMES, WRITING, LIFE, MEMORY, LOGS];

const OPENING: Section = Section {
    title: "Limits: opening a connection",
    limits: true,
    keys: &live([
        Key::number("handshake_timeout", Time, 100, 10 * MINUTE, |c| &mut c.limits.opening.handshake_timeout)
            .is("From accept to the complete head. Absolute: bytes do not move it.")
            .extremes("Clients on slow links cannot connect.", "A slow sender of heads holds a place for longer."),
        Key::number("head_bytes_max", Bytes, KIB, 64 * KIB, |c| &mut c.limits.opening.head_bytes_max)
            .is("Request line and headers together; more is a 431.")
            .extremes("Browsers with many cookies get 431.", "Each opening connection may take that much memory."),
        Key::number("headers_max", Of("headers"), 8, 256, |c| &mut c.limits.opening.headers_max)
            .is("Headers; more is a 431.")
            .extremes("Clients behind proxies that add headers get 431.", "More work before anyone is known."),
        Key::number("target_bytes_max", Bytes, 256, 64 * KIB, |c| &mut c.limits.opening.target_bytes_max)
            .is("The request target, with its query; more is a 414.")
            .extremes("Tokens and tags in the query no longer fit: 414.", "More work before anyone is known."),
        Key::number("connections_per_address", Of("connections"), 1, 1_000_000, |c| {
            &mut c.limits.opening.connections_per_address
        })
        .or_zero("no bound")
        .is("Open connections from one address.")
        .extremes(
            "Users behind one address (an office, a mobile network) shut each other out.",
            "One machine may fill the node.",
        ),
        Key::number("connections_per_uid", Of("connections"), 1, 1_000_000, |c| {
            &mut c.limits.opening.connections_per_uid
        })
        .or_zero("no bound")
        .is("Open connections of one uid on a node.")
        .extremes("A user with several devices or tabs is refused.", "One user may fill the node."),
        Key::word("kick_oldest", "`true`, `false`", |c| &mut c.limits.opening.kick_oldest)
            .is("Over `connections_per_uid`: close the oldest (4409) instead of refusing the new one (4429)."),
        Key::number("connections_max", Of("connections"), 1, 10_000_000, |c| &mut c.limits.opening.connections_max)
            .is("Open connections of the node; 80 % of the file limit where that is less.")
            .extremes(
                "New users are refused while the machine idles.",
                "Memory is the bound instead, and everyone feels it.",
            ),
        Key::number("accepts_per_second", Of("accepts/s a core"), 1, 1_000_000, |c| {
            &mut c.limits.opening.accepts_per_second
        })
        .is("Accepts, with a burst of as many.")
        .extremes(
            "After a restart users wait long to come back.",
            "A storm of connects delays those who are connected.",
        ),
        Key::number("failed_credentials_per_minute", Of("failures/min an address"), 1, 1_000_000, |c| {
            &mut c.limits.opening.failed_credentials_per_minute
        })
        .is("Failed credentials; beyond: a plain 429 without an upgrade.")
        .extremes("One bad client shuts out others behind its address for a minute.", "Guessing costs less."),
        Key::number("sign_horizon_connect", Time, SECOND, 366 * 24 * HOUR, |c| {
            &mut c.limits.opening.sign_horizon_connect
        })
        .is("How far ahead `exp` of a user's connect may be.")
        .extremes(
            "URLs made ahead of time, or by a clock that runs ahead, are refused.",
            "A stolen URL works for longer.",
        ),
        Key::number("sign_horizon_push", Time, SECOND, 24 * HOUR, |c| &mut c.limits.opening.sign_horizon_push)
            .is("How far ahead `exp` of an HTTP call may be.")
            .extremes("Calls by a clock that runs ahead are refused.", "A stolen call can be repeated for longer."),
    ]),
};

const FRAMES: Section = Section {
    title: "Limits: what a connection may send",
    limits: true,
    keys: &live([
        Key::number("user_message_bytes_max", Bytes, 256, 16 * MIB, |c| &mut c.limits.frames.user_message_bytes_max)
            .is("A message from a user; more closes with 1009.")
            .extremes("Requests no longer fit: 1009.", "Each connection may take that much memory."),
        Key::number("backend_message_bytes_max", Bytes, KIB, 64 * MIB, |c| {
            &mut c.limits.frames.backend_message_bytes_max
        })
        .is("A message from a back-end; more closes with 1009.")
        .extremes("Large pushes over a back-end connection close it.", "Each back-end may take that much memory."),
        Key::number("fragments_max", Of("fragments"), 1, 1_000_000, |c| &mut c.limits.frames.fragments_max)
            .is("Fragments of one message.")
            .extremes("Clients that send in pieces are closed.", "Many tiny fragments cost work out of proportion."),
        Key::number("fragments_timeout", Time, 100, 10 * MINUTE, |c| &mut c.limits.frames.fragments_timeout)
            .is("From a message's first byte to its last.")
            .extremes("Large messages over slow links are cut off.", "Half a message holds its memory for longer."),
        Key::number("messages_per_second", Of("messages/s"), 1, 1_000_000, |c| {
            &mut c.limits.frames.messages_per_second
        })
        .is("Messages from a user.")
        .extremes("Busy but honest clients are paused, then closed (1008).", "One user may take a core's time."),
        Key::number("messages_burst", Of("messages"), 1, 1_000_000, |c| &mut c.limits.frames.messages_burst)
            .is("Messages that may come at once from a user.")
            .extremes("Subscribing to much at once is paused.", "Short floods pass."),
        Key::number("control_frames_per_second", Of("frames/s"), 1, 100_000, |c| {
            &mut c.limits.frames.control_frames_per_second
        })
        .is("Pings, pongs and closes.")
        .extremes("Clients that ping often are closed (1008).", "Pings cost a pong each."),
        Key::number("bytes_per_second", Bytes, KIB, 1 << 30, |c| &mut c.limits.frames.bytes_per_second)
            .is("Bytes a second from a user; what a compressed message inflates to counts.")
            .extremes("Large requests are paused, then closed (1008).", "One user may take a core's time."),
        Key::number("backend_messages_per_second", Of("messages/s"), 1, 10_000_000, |c| {
            &mut c.limits.frames.backend_messages_per_second
        })
        .is("Messages from a back-end.")
        .extremes("Pushes come late.", "One back-end may take a core's time."),
        Key::number("rate_pause_max", Time, 10, MINUTE, |c| &mut c.limits.frames.rate_pause_max)
            .is("How long reading pauses for a sender over its rate before it is closed (1008).")
            .extremes("A short burst over the rate closes.", "A flood is held in the kernel's buffers for longer."),
        Key::number("turn_bytes_max", Bytes, KIB, 16 * MIB, |c| &mut c.limits.frames.turn_bytes_max)
            .is("Bytes of one connection that are handled before others get their turn.")
            .extremes("More turns, more work for the same bytes.", "A busy connection delays the others."),
        Key::number("turn_frames_max", Of("frames"), 1, 100_000, |c| &mut c.limits.frames.turn_frames_max)
            .is("Frames of one connection that are handled before others get their turn.")
            .extremes("More turns, more work for the same frames.", "A busy connection delays the others."),
        Key::number("json_depth_max", Of("levels"), 2, 512, |c| &mut c.limits.frames.json_depth_max)
            .is("Nesting of JSON.")
            .extremes("Honest payloads are refused (`too_deep`).", "Readers of the payload must bear the depth."),
        Key::number("bad_messages_max", Of("messages"), 1, 100_000, |c| &mut c.limits.frames.bad_messages_max)
            .is("Bad messages in a row before a close (1008).")
            .extremes("A client with one faulty message is closed.", "A broken client keeps costing answers."),
        Key::number("tags_per_connection", Of("tags"), 1, 100_000, |c| &mut c.limits.frames.tags_per_connection)
            .is("Tags a connection may be subscribed to.")
            .extremes("Clients with wide watch lists are denied.", "One connection costs the memory of many."),
        Key::number("audience_max", Of("names"), 1, 1_000_000, |c| &mut c.limits.frames.audience_max)
            .is("Names in one part of a push's audience.")
            .extremes("Wide pushes must be split.", "One push takes long on every core."),
        Key::number("push_bytes_max", Bytes, KIB, 16 * MIB, |c| &mut c.limits.frames.push_bytes_max)
            .is("A push's payload; more is a 413.")
            .extremes("Large pushes are refused.", "One push takes that much in every slow connection's outbox."),
    ]),
};

const WRITING: Section = Section {
    title: "Limits: what waits to be written",
    limits: true,
    keys: &live([
        Key::number("outbox_bytes_max", Bytes, 16 * KIB, 1 << 30, |c| &mut c.limits.writing.outbox_bytes_max)
            .is("Bytes that wait for one connection; over it a connection is told and closed (4008). At least `push_bytes_max`.")
            .extremes("Short stalls of a link close it.", "A slow connection takes more memory, and what it gets is older."),
        Key::number("outbox_frames_max", Of("frames"), 1, 1_000_000, |c| &mut c.limits.writing.outbox_frames_max)
            .is("Frames that wait for one connection; over it as above.")
            .extremes("Short stalls of a link close it.", "What a slow connection gets is older."),
        Key::number("outboxes_bytes_max", Bytes, MIB, 1 << 40, |c| &mut c.limits.writing.outboxes_bytes_max)
            .or_zero("a quarter of the memory")
            .is("Bytes that wait for all connections of the node together.")
            .extremes("A few slow connections use it up, and others are closed.", "The node may run out of memory."),
        Key::number("kept_bytes_max", Bytes, KIB, 1 << 30, |c| &mut c.limits.writing.kept_bytes_max)
            .is("Kept publications (closed bars) of one tag that a core remembers for `latest` subscribers that are behind; who is owed more is closed (4008).")
            .extremes("Short stalls of a link close it.", "Tags with many kept publications take more memory while somebody is behind."),
        Key::number("write_timeout", Time, 100, 10 * MINUTE, |c| &mut c.limits.writing.write_timeout)
            .is("Waiting bytes without progress: the connection is reset. Who only waits for current values of `latest` tags is not: nothing is held for it, and `ping_after` finds the dead.")
            .extremes("A phone in a tunnel loses its connection.", "Dead connections hold their outbox for longer."),
        Key::number("unacknowledged_timeout", Time, 100, HOUR, |c| &mut c.limits.writing.unacknowledged_timeout)
            .for_new().is("Sent bytes that the peer does not acknowledge for so long end the connection (`TCP_USER_TIMEOUT`), or for twice `write_timeout` where that is longer.")
            .extremes("A phone in a tunnel loses its connection.", "Dead connections stay for longer."),
        Key::number("notsent_lowat_bytes", Bytes, KIB, 16 * MIB, |c| &mut c.limits.writing.notsent_lowat_bytes)
            .or_zero("the kernel's default")
            .for_new().is("Unsent bytes in the kernel from which on a socket takes no more (`TCP_NOTSENT_LOWAT`): what waits there ages.")
            .extremes("More wake-ups for backlogs on fast links.", "A slow client sees older values: this many bytes of them."),
        Key::number("send_buffer_bytes", Bytes, 4 * KIB, 64 * MIB, |c| &mut c.limits.writing.send_buffer_bytes)
            .or_zero("as the kernel tunes it")
            .for_new().is("Bytes of one connection in the kernel, sent and not acknowledged ones included (`SO_SNDBUF`; Linux takes twice as much, and `net.core.wmem_max` is a bound).")
            .extremes("Far clients get no more than this each round trip.", "Slow clients take more kernel memory."),
        Key::number("write_bytes_max", Bytes, KIB, 4 * MIB, |c| &mut c.limits.writing.write_bytes_max)
            .is("One write to a socket.")
            .extremes("More system calls for the same bytes.", "One backlog takes long while others wait."),
        Key::number("walk_slice", Of("connections"), 1, 1_000_000, |c| &mut c.limits.writing.walk_slice)
            .is("Connections a fan-out serves before others get their turn.")
            .extremes("More turns, more work for the same deliveries.", "Pings and small tags wait for a large fan-out."),
        Key::number("payload_guidance_bytes", Bytes, 1, 16 * MIB, |c| &mut c.limits.writing.payload_guidance_bytes)
            .is("Payloads above this are sent, counted, and reported to their publisher.")
            .extremes("Everything is reported.", "Payloads that do not fit one segment go unnoticed."),
    ]),
};

const LIFE: Section = Section {
    title: "Limits: a connection's life",
    limits: true,
    keys: &live([
        Key::number("ping_after", Time, 100, HOUR, |c| &mut c.limits.life.ping_after)
            .is("Silence before the server pings. Not less than `heartbeat`.")
            .extremes(
                "Pings wake phones and cost traffic.",
                "Dead connections stay for longer; proxies may cut idle ones.",
            ),
        Key::number("pong_timeout", Time, 100, HOUR, |c| &mut c.limits.life.pong_timeout)
            .is("Silence after that ping before a close (4408).")
            .extremes("Slow links are closed.", "Dead connections stay for longer."),
        Key::number("close_timeout", Time, 100, MINUTE, |c| &mut c.limits.life.close_timeout)
            .is("From a close frame to the end of the TCP connection, whatever the peer does. At most `drain`.")
            .extremes(
                "Peers on slow links see a reset instead of the close's reason.",
                "Closed connections hold their place for longer.",
            ),
        Key::number("heartbeat", Time, 100, HOUR, |c| &mut c.limits.life.heartbeat)
            .for_new()
            .is("What clients are told to keep between two `heart`.")
            .extremes("Traffic and wake-ups for nothing.", "The server pings before the client speaks."),
        Key::number("drain", Time, 100, HOUR, |c| &mut c.limits.life.drain)
            .is("From SIGTERM to the end of the last connection. What is left of it without `close_timeout` is what connections are spread over; each is told when to move.")
            .extremes(
                "The other nodes are stormed.",
                "A restart takes long; the orchestrator may kill before the end.",
            ),
    ]),
};

const MEMORY: Section = Section {
    title: "Limits: memory",
    limits: true,
    keys: &live([
        Key::number("memory_max_bytes", Bytes, 16 * MIB, 1 << 44, |c| &mut c.limits.memory.memory_max_bytes)
            .or_zero("the cgroup's bound, or else the machine's memory")
            .is("What the process may use. In a cgroup that has a bound what the whole cgroup uses counts, its page cache aside; without one, or with this key given, the process's resident memory.")
            .extremes("Connections are refused and cut while there is room.", "The kernel ends the process before this does anything."),
        Key::number("memory_soft_percent", Of("percent"), 1, 100, |c| &mut c.limits.memory.memory_soft_percent)
            .is("Of that so much in use: new connections are refused (503), those that are there go on. Over again 5 points below.")
            .extremes("New users are refused while there is room.", "Nothing is left between refusing and cutting."),
        Key::number("memory_hard_percent", Of("percent"), 1, 100, |c| &mut c.limits.memory.memory_hard_percent)
            .is("Of that so much in use: the connections for which most bytes wait are closed (4008), the largest first, until 5 points below.")
            .extremes("Slow connections are closed while there is room.", "The kernel may be faster, and ends the process."),
    ]),
};

const LOGS: Section = Section {
    title: "Limits: logs and errors",
    limits: true,
    keys: &live([
        Key::number("log_buffer_bytes_max", Bytes, 64 * KIB, 1 << 30, |c| &mut c.limits.logs.log_buffer_bytes_max)
            .at_restart().is("Log lines that wait for the disk or the terminal; nobody waits for room, what no longer fits is lost and counted.")
            .extremes("A disk that is full for a moment loses lines.", "More memory while a disk is full."),
        Key::number("log_rotate_bytes", Bytes, 64 * KIB, 1 << 40, |c| &mut c.limits.logs.log_rotate_bytes)
            .or_zero("whatever its length")
            .at_restart().is("`log_file` is closed for a new one before it is longer.")
            .extremes("Many files.", "A file that no editor opens; much at once to compress."),
        Key::number("log_keep_files", Of("files"), 1, 100_000, |c| &mut c.limits.logs.log_keep_files)
            .or_zero("any number")
            .at_restart().is("Rotated log files that are kept.")
            .extremes("What went wrong last night is gone.", "The other two bounds decide alone."),
        Key::number("log_keep_bytes", Bytes, 64 * KIB, 1 << 44, |c| &mut c.limits.logs.log_keep_bytes)
            .or_zero("any number")
            .at_restart().is("Bytes of all rotated log files together, as they are on the disk.")
            .extremes("What went wrong last night is gone.", "The disk fills up."),
        Key::number("log_keep_age", Time, MINUTE, 3660 * 24 * HOUR, |c| &mut c.limits.logs.log_keep_age)
            .or_zero("any age")
            .at_restart().is("How long a rotated log file is kept.")
            .extremes("What went wrong last night is gone.", "The other two bounds decide alone."),
        Key::number("sentry_events_per_minute", Of("events/min"), 1, 60_000, |c| {
            &mut c.limits.logs.sentry_events_per_minute
        })
        .at_restart().is("Errors and panics that are reported, with a burst of 20; the next one tells how many were not.")
        .extremes("Of several different errors some are never seen.", "An error in every message uses up what one pays for."),
    ]),
};
