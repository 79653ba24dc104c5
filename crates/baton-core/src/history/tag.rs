//! Tags: names that people have given releases of a service. What has a tag is found by it, and is not removed.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use super::{History, ProposeError};
use crate::ids::{ReleaseId, valid_name};

/// Most tags of a service: more than anybody keeps releases, and a record that stays small.
pub const TAGS_MAX: usize = 1000;

/// What people call a release: `master.5`, `production`. Never what could be the beginning of a release's id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagName(Arc<str>);

/// Why a text is no tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "tag {0:?} is not valid: use 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-', starting with a letter or digit, and not only \
     digits of hashes (0-9, a-f), as if it were the id of a release"
)]
pub struct InvalidTag(pub String);

/// The release that has a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// Which.
    pub release: ReleaseId,
    /// Who gave it the tag.
    pub actor: String,
    /// Milliseconds since 1970.
    pub since: u64,
}

/// The tags of a service.
pub type Tags = BTreeMap<TagName, Tag>;

impl TagName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TagName {
    type Err = InvalidTag;

    fn from_str(text: &str) -> Result<Self, InvalidTag> {
        let is_digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if valid_name(text) && !is_digits { Ok(Self(text.into())) } else { Err(InvalidTag(text.to_string())) }
    }
}

impl fmt::Display for TagName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl History {
    /// The same log of a service with these tags.
    #[must_use]
    pub fn with_tags(self, tags: Tags) -> Self {
        Self { tags, ..self }
    }

    /// Its tags.
    pub const fn tags(&self) -> &Tags {
        &self.tags
    }

    /// The release that a text names as one of its tags.
    pub fn tagged(&self, text: &str) -> Option<ReleaseId> {
        let name: TagName = text.parse().ok()?;
        self.tags.get(&name).map(|tag| tag.release)
    }

    /// Gives a release a tag, which is then no other one's, or takes the tag away with none. Doing so twice changes nothing.
    ///
    /// # Errors
    /// There is no such tag, or there are too many.
    pub fn set_tag(&mut self, name: &TagName, tag: Option<Tag>) -> Result<(), ProposeError> {
        let full = self.tags.len() >= TAGS_MAX && !self.tags.contains_key(name);
        match tag {
            Some(_) if full => return Err(ProposeError::TooManyTags),
            Some(tag) => drop(self.tags.insert(name.clone(), tag)),
            None if self.tags.remove(name).is_none() => {
                return Err(ProposeError::NoSuchTag { tag: name.clone() });
            }
            None => {}
        }
        Ok(())
    }
}
