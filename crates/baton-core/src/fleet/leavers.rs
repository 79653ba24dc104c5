//! Who was asked to stop in the course of a deploy, and whether that speaks against its release.

use crate::ids::MemberId;

/// Members that were asked to stop since the deploy in force has begun, as far as this server has heard since it was started.
///
/// One that was in the middle of a try says nothing about the release: a platform stops whom it does not need. But one whose
/// own checks fail stops whom it holds for ill, and those are the ones with the release. So they count as failures as soon as
/// more of them are stopped than of all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leavers {
    trying: u32,
    others: u32,
    /// The last one that was in the middle of a try.
    last: Option<MemberId>,
}

impl Leavers {
    pub(super) fn note(&mut self, id: &MemberId, tries: bool) {
        if tries {
            self.trying += 1;
            self.last = Some(id.clone());
        } else {
            self.others += 1;
        }
    }

    /// How many of them speak against the release.
    pub(crate) const fn suspect(&self) -> u32 {
        if self.trying > self.others { self.trying } else { 0 }
    }

    /// One that speaks against it, if any does.
    pub(crate) fn first_suspect(&self) -> Option<&MemberId> {
        self.last.as_ref().filter(|_| self.suspect() > 0)
    }
}
