//! Where the outputs of a build step are in a store.

use baton_core::ids::ReleaseId;
use baton_core::release::outline::{OUTLINE_BYTES_MAX, Outline};

/// Longest record: an outline behind a few short lines.
pub const RECORD_BYTES_MAX: usize = OUTLINE_BYTES_MAX + 1024;

/// Where the outputs of a step are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The hash of their manifest.
    pub id: ReleaseId,
    /// Which chunks make it up.
    pub outline: Outline,
}

impl Record {
    /// Its text: the hash of the manifest, and its outline.
    pub fn to_text(&self) -> String {
        format!("baton-outputs 1\nmanifest {}\n{}", self.id, self.outline.to_text())
    }

    /// Reads a record; nothing when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, outline) = text.strip_prefix("baton-outputs 1\nmanifest ")?.split_once('\n')?;
        Some(Self { id: id.parse().ok()?, outline: Outline::parse(outline).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::release::outline::Outlined;

    #[test]
    fn a_record_comes_back_as_it_was_and_nothing_else_is_one() {
        let record = Record { id: ReleaseId::from_bytes([7; 32]), outline: Outlined::of("a\nb\n").top };
        let text = record.to_text();
        assert_eq!(Record::parse(&text), Some(record));
        for wrong in
            ["", "baton-outputs 2", &text[1..], &text[..text.len() - 1], &text.replace("manifest", "x")]
        {
            assert_eq!(Record::parse(wrong), None, "{wrong}");
        }
    }
}
