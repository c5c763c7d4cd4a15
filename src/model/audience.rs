//! To whom a push goes.

use super::ids::Tag;

/// The parts of an audience; an empty part is not given. Parts are intersected, inside a part any member
/// matches, and no part at all means every user connection of the project (asked for with `"all":true`).
///
/// `cids` stay text: one that is malformed matches nobody, and is still a part that was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    /// User ids.
    pub uids: Vec<Box<str>>,
    /// Connection ids.
    pub cids: Vec<Box<str>>,
    /// Tags; a connection matches that subscribes to any.
    pub tags: Vec<Tag>,
    /// Kinds of device.
    pub devices: Vec<Box<str>>,
}

impl Audience {
    /// Whether no part is given: the whole project.
    pub fn is_everyone(&self) -> bool {
        self.uids.is_empty() && self.cids.is_empty() && self.tags.is_empty() && self.devices.is_empty()
    }

    /// The tag, if the audience is exactly one tag and nothing else: then the push is a publication.
    pub fn single_tag(&self) -> Option<&Tag> {
        match self.tags.as_slice() {
            [tag] if self.uids.is_empty() && self.cids.is_empty() && self.devices.is_empty() => Some(tag),
            _ => None,
        }
    }

    /// How many members all parts have together.
    pub fn len(&self) -> usize {
        self.uids.len() + self.cids.len() + self.tags.len() + self.devices.len()
    }

    /// Whether no part has a member; the same as [`Audience::is_everyone`].
    pub fn is_empty(&self) -> bool {
        self.is_everyone()
    }
}
