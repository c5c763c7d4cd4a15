//! What happens by time on a core.

use std::{rc::Rc, time::Duration};

use crate::hub::Expired;

use super::core::Core;

/// How often sessions are looked at.
const TICK: Duration = Duration::from_millis(50);
/// A round over all sessions takes so many ticks (half a second).
const TICKS_PER_ROUND: usize = 10;
/// At least so many sessions are looked at in a tick.
const SESSIONS_PER_TICK_MIN: usize = 64;

/// Looks after time for ever.
pub async fn tick(core: Rc<Core>) {
    futures_util::future::join(core.keep_time(), expire(&core)).await;
}

async fn expire(core: &Core) {
    let mut expired = Vec::new();
    loop {
        monoio::time::sleep(TICK).await;
        core.set_wall();
        core.with_hub(|hub| {
            let part = hub.slots().div_ceil(TICKS_PER_ROUND).max(SESSIONS_PER_TICK_MIN);
            hub.expire(part, &mut expired);
        });
        for Expired::Shut(id) in expired.drain(..) {
            core.shut(id);
        }
    }
}
