//! What must be in no report: the node's own secrets, wherever they turn up, and whole kinds of content.
//!
//! Reports are made of cleaned texts already; this is the last look, at the known secrets themselves.

use std::fmt;

use sentry::protocol::Event;

use crate::limits::SCRUBBED_SECRETS_MAX;

/// Shorter ones are no secrets, and would be found in every word.
const SECRET_BYTES_MIN: usize = 6;
const STARS: &str = "***";

/// The known secrets. No `Debug` shows them.
#[derive(Clone, Default)]
pub struct Scrub(Vec<String>);

impl Scrub {
    /// Hides these, and the forms that they have in a URL.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let long: Vec<&str> = secrets.into_iter().filter(|secret| secret.len() >= SECRET_BYTES_MIN).collect();
        let encoded = long.iter().map(|secret| percent_encoding::utf8_percent_encode(secret, UNRESERVED).to_string());
        let mut all: Vec<String> = encoded.collect();
        all.extend(long.iter().map(|secret| (*secret).to_owned()));
        // A secret that is part of another must not leave the rest of that one behind.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        all.dedup();
        Self(all)
    }

    /// These too; the earlier ones may turn up in a report yet, and go only when there are very many.
    pub fn with<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut new = Self::new(secrets);
        let room = SCRUBBED_SECRETS_MAX.saturating_sub(new.0.len());
        let earlier: Vec<String> = self.0.iter().filter(|secret| !new.0.contains(secret)).take(room).cloned().collect();
        new.0.extend(earlier);
        new.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        new
    }

    /// `text` without the secrets.
    pub fn text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), STARS) } else { text }
        })
    }

    /// `event` without the secrets and without what no report has: requests, users, breadcrumbs.
    pub fn event(&self, mut event: Event<'static>) -> Event<'static> {
        event.request = None;
        event.user = None;
        event.breadcrumbs = Vec::new().into();
        event.message = event.message.map(|message| self.text(&message));
        for exception in &mut event.exception {
            exception.value = exception.value.take().map(|value| self.text(&value));
        }
        for value in event.extra.values_mut() {
            if let Some(text) = value.as_str() {
                *value = self.text(text).into();
            }
        }
        for value in event.tags.values_mut() {
            *value = self.text(value);
        }
        event
    }
}

const UNRESERVED: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

impl fmt::Debug for Scrub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scrub({} secrets)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use sentry::protocol::{Breadcrumb, Exception, Request, User};

    use super::*;

    #[test]
    fn known_secrets_are_found_wherever_they_stand() {
        let scrub = Scrub::new(["hush hush", "hush hush, longer", "short"]);
        assert_eq!(scrub.text("a hush hush, longer, b hush%20hush c short"), "a ***, b *** c short");
        assert!(!format!("{scrub:?}").contains("hush"));
        let more = scrub.with(["another one"]);
        assert_eq!(more.text("another one, hush hush"), "***, ***", "the new and the earlier ones");
        let mut event = Event { message: Some("hush hush".into()), ..Event::default() };
        event.exception = vec![Exception { value: Some("is hush hush".into()), ..Exception::default() }].into();
        event.extra.insert("x".into(), "hush hush".into());
        event.tags.insert("y".into(), "hush hush".into());
        event.request = Some(Request { query_string: Some("sign=1".into()), ..Request::default() });
        event.user = Some(User::default());
        event.breadcrumbs = vec![Breadcrumb::default()].into();
        let scrubbed = scrub.event(event);
        assert!(!format!("{scrubbed:?}").contains("hush"), "{scrubbed:?}");
        assert!(scrubbed.request.is_none() && scrubbed.user.is_none() && scrubbed.breadcrumbs.is_empty());
    }
}
