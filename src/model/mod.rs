//! The plain values every floor speaks in: who, to whom, what, and where in the queue.
//!
//! Invariants: nothing here owns a socket, a clock or a lock; every type is `Send` and cheap to clone or moved whole.

pub mod audience;
pub mod ids;
pub mod network;
pub mod place;
pub mod project;
pub mod record;
pub mod stamp;
pub mod tag_rule;
pub mod traffic;

pub use audience::Audience;
pub use ids::{Boot, ClientId, NodeId, Pid, RecordId, SessionId, Tag};
pub use place::Place;
pub use project::{Project, Projects};
pub use record::{Control, ControlOp, LastValue, Publication, Published, Push, Record, Request, RetainOutcome, Source};
pub use stamp::{Stamp, TraceParent};
pub use tag_rule::{TagRule, TagRules, pattern_matches};
pub use traffic::{AckTo, FollowStart, FromCore, MovePlan, Refusal, Reply, Role, Ticket, ToCore};
