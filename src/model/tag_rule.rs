//! Rules for tags: ordered patterns, the first that matches decides.

use std::{sync::Arc, time::Duration};

/// How a connection that falls behind is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryClass {
    /// Every publication in order, or the connection is told and closed (4008).
    #[default]
    Lossless,
    /// Only the current value, with the number of those it stands for.
    Latest,
}

/// Who may subscribe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Every user of the project.
    #[default]
    Public,
    /// Only a back-end may subscribe a connection.
    Private,
    /// A user whose uid is what follows the pattern's prefix.
    Own,
}

/// How much of a tag's past every node keeps; the tightest bound counts. The last value is always kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Publications.
    pub count_max: usize,
    /// Age.
    pub age_max: Duration,
    /// Payload bytes together.
    pub bytes_max: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { count_max: 128, age_max: Duration::from_secs(600), bytes_max: 256 << 10 }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRule {
    /// A whole tag, or a prefix when it ends in `*`.
    pub pattern: Box<str>,
    /// How a slow connection is served.
    pub class: DeliveryClass,
    /// How much of the past is kept.
    pub history: History,
    /// Whether a publication equal to the last value is passed over.
    pub dedup: bool,
    /// Who may subscribe.
    pub access: Access,
    /// At most so many updates a second; 0: every one.
    pub hz_max: u32,
    /// Whether its publications are compressed for connections that have agreed on it.
    pub deflate: bool,
}

impl Default for TagRule {
    fn default() -> Self {
        Self {
            pattern: "".into(),
            class: DeliveryClass::default(),
            history: History::default(),
            dedup: false,
            access: Access::default(),
            hz_max: 0,
            deflate: true,
        }
    }
}

impl TagRule {
    /// Whether the rule is for `tag`.
    pub fn matches(&self, tag: &str) -> bool {
        pattern_matches(&self.pattern, tag)
    }

    /// Whether a user named `uid` may subscribe to `tag`, which this rule is for.
    pub fn admits(&self, tag: &str, uid: &str) -> bool {
        match self.access {
            Access::Public => true,
            Access::Private => false,
            Access::Own => tag.strip_prefix(self.pattern.trim_end_matches('*')) == Some(uid),
        }
    }
}

/// Whether `pattern` (a whole tag, or a prefix when it ends in `*`) covers `tag`.
pub fn pattern_matches(pattern: &str, tag: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => tag.starts_with(prefix),
        None => pattern == tag,
    }
}

/// The rules in order, with a default behind them; replaced whole on a reload.
#[derive(Clone, Debug, Default)]
pub struct TagRules {
    rules: Arc<[TagRule]>,
    fallback: Arc<TagRule>,
}

impl TagRules {
    /// The rules in the order in which they are tried.
    pub fn new(rules: Vec<TagRule>) -> Self {
        Self { rules: rules.into(), fallback: Arc::default() }
    }

    /// The rules in the order in which they are tried, without the default.
    pub fn iter(&self) -> impl Iterator<Item = &TagRule> {
        self.rules.iter()
    }

    /// The first rule that matches, or the default (lossless, public, the default history).
    pub fn find(&self, tag: &str) -> &TagRule {
        self.rules.iter().find(|rule| rule.matches(tag)).unwrap_or(&self.fallback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_match_wins_and_own_compares_the_rest_with_the_uid() {
        let rule = |pattern: &str, access| TagRule { pattern: pattern.into(), access, ..TagRule::default() };
        let rules = TagRules::new(vec![
            rule("user.*", Access::Own),
            rule("user.bob", Access::Public),
            rule("ops", Access::Private),
        ]);
        assert!(rules.find("user.bob").admits("user.bob", "bob"));
        assert!(!rules.find("user.bob").admits("user.bob", "eve"));
        assert!(!rules.find("ops").admits("ops", "bob"));
        assert!(rules.find("opsx").admits("opsx", "bob"));
    }
}
