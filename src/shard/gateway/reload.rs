//! New projects and new rules for tags, while everybody stays connected who still may.
//!
//! Invariant: whoever loses something is told: the connections of a project that is gone by a close (4401), a user whose
//! subscription the rules deny now as if it had just asked for it.

use crate::{
    metrics::Count,
    model::{Projects, TagRules},
    protocol::{frame::close_code, message::DeniedTag},
};

use super::{super::core::Core, Gateway, user};

impl Gateway {
    /// Replaces the projects and the rules; the core's hub must have got the same rules before.
    pub fn reload(&self, core: &Core, projects: Projects, rules: TagRules) {
        self.projects.replace(projects);
        self.rules.replace(rules);
        self.close_gone(core);
        self.end_denied(core);
    }

    fn close_gone(&self, core: &Core) {
        let projects = self.projects.borrow();
        let gone = core.with_hub(|hub| hub.of_projects_gone(|pid| projects.get(pid).is_some()));
        core.counters().add(Count::ClosedRemoved, gone.len() as u64);
        for id in gone {
            let reason = "the project is not served any more";
            core.with_hub(|hub| hub.begin_close(id, close_code::CREDENTIALS, reason, false));
        }
    }

    fn end_denied(&self, core: &Core) {
        for (id, tags) in core.with_hub(|hub| hub.denied()) {
            let Some(pid) = core.with_hub(|hub| hub.pid(id).cloned()) else { continue };
            for tag in &tags {
                if let Some(unused) = core.with_hub(|hub| hub.unfollow(id, tag)) {
                    self.unfollowed(&pid, unused);
                }
            }
            core.counters().add(Count::SubscriptionsEnded, tags.len() as u64);
            let denied = tags.iter().map(|tag| DeniedTag { tag: tag.as_str().into(), err: "denied" });
            user::answer_subscribe(core, id, None, &[], &denied.collect::<Vec<_>>());
        }
    }
}
