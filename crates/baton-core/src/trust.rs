//! Whom a member believes: what signatures allow, so that whoever owns control, its store or the network can delay what
//! runs and never choose it.
//!
//! A [`Warrant`] is a signed deploy. It allows its release under its own epoch, and, under the epochs that follow,
//! control's own answers to it: a halt, and a return to the one fallback that it names. A member keeps the newest
//! warrant that it has obeyed, and never goes behind it: an old release may come back by a new warrant, an old warrant
//! never does.

mod keys;
mod signed;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use keys::{Day, TRUSTED_KEYS_BYTES_MAX, TrustedKey, TrustedKeys};
pub use signed::{
    Approval, Bounds, SIGNATURES_MAX, SIGNED_BYTES_MAX, Signature, Signed, Statement, Warrant, approvals,
};

use crate::ids::{Epoch, KeyId, ReleaseId, ServiceName, SignatureBytes};
use crate::member::{Purpose, Wish};
use crate::output::time::UnixMicros;
use crate::release::TextError;
use crate::report::Seen;
use crate::units::Millis;

/// How far the clocks of who signs and who checks may differ.
pub const CLOCK_SKEW: Millis = Millis::from_secs(5 * 60);
/// How many epochs after a warrant its halts and returns may be. A fleet needs two; without a limit control could use up
/// all numbers there are, and no deploy would ever be newer.
pub const FOLLOWING_EPOCHS_MAX: u64 = 1 << 20;

/// What a key is trusted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To vouch for releases.
    Releases,
    /// To say what runs.
    Deploys,
}

impl Role {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Releases, Self::Deploys];

    /// Its word in lists of keys.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Releases => "releases",
            Self::Deploys => "deploys",
        }
    }
}

/// Checks one signature of a text.
pub type Verify<'a> = &'a (dyn Fn(&KeyId, &[u8], &SignatureBytes) -> bool + Sync);

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Something that is new here, at this time in milliseconds since 1970.
    New(u64),
    /// What was accepted here before. Keys that have been revoked since count, or else taking a key back would take down
    /// what runs.
    Kept,
}

/// Why something is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Nobody has signed the deploy.
    #[error("deploy {epoch} is not signed: deploy with --key")]
    Unsigned {
        /// Its number.
        epoch: Epoch,
    },
    /// Nobody has signed the release.
    #[error("release {} is not signed: sign it with `baton key sign`", .release.short())]
    UnsignedRelease {
        /// The release.
        release: ReleaseId,
    },
    /// What is said to be signed cannot be read.
    #[error("what was signed cannot be read")]
    Text(#[from] TextError),
    /// It is about another service.
    #[error("what was signed is for service {found}, and this is {service}")]
    OtherService {
        /// This member's service.
        service: ServiceName,
        /// That of the text.
        found: ServiceName,
    },
    /// Too few of its signatures count.
    #[error("{count} of {needed} trusted keys signed it{}", useless(.passed_over))]
    TooFew {
        /// How many count.
        count: u32,
        /// How many are needed.
        needed: u32,
        /// Keys whose signatures do not count, as people know them, and why.
        passed_over: Vec<(String, Useless)>,
    },
    /// It came too late.
    #[error(
        "the signed deploy {epoch} could be accepted until {}, and here it is {}: sign it anew with \
         `baton deploy --renew`, or set the clock",
        moment(*.expires), moment(*.now)
    )]
    Expired {
        /// Its number.
        epoch: Epoch,
        /// Until when, in milliseconds since 1970.
        expires: u64,
        /// When it came.
        now: u64,
    },
    /// Something newer was obeyed here.
    #[error("the signed deploy {epoch} is older than {kept}, which was accepted here")]
    Old {
        /// Its number.
        epoch: Epoch,
        /// The number of what is newer.
        kept: Epoch,
    },
    /// It was signed, and for something else.
    #[error(
        "deploy {epoch} wants release {}, and the signed deploy {signed} allows {}",
        .release.short(), allowed(*.allows, *.fallback)
    )]
    NotWhatWasSigned {
        /// What control calls the deploy.
        epoch: Epoch,
        /// What control wants.
        release: ReleaseId,
        /// The deploy that control shows for it.
        signed: Epoch,
        /// The release that it names.
        allows: ReleaseId,
        /// The one to go back to.
        fallback: Option<ReleaseId>,
    },
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Useless {
    /// The key is not in the list.
    Unknown,
    /// The key is trusted for other things.
    OtherRole,
    /// The key is trusted for other services.
    OtherService,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
    /// The signature is not one of this text by this key.
    Wrong,
}

impl fmt::Display for Useless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "is not trusted here",
            Self::OtherRole => "may not sign this",
            Self::OtherService => "may not sign for this service",
            Self::Expired => "has expired",
            Self::Revoked => "was revoked",
            Self::Wrong => "did not sign this text",
        })
    }
}

fn useless(passed_over: &[(String, Useless)]) -> String {
    let each: Vec<String> =
        passed_over.iter().map(|(name, why)| alloc::format!("key {name} {why}")).collect();
    if each.is_empty() { String::new() } else { alloc::format!(": {}", each.join(", ")) }
}

fn moment(unix_ms: u64) -> UnixMicros {
    UnixMicros(unix_ms.saturating_mul(1000))
}

fn allowed(release: ReleaseId, fallback: Option<ReleaseId>) -> String {
    match fallback {
        Some(fallback) => alloc::format!("{}, and later {} to go back to", release.short(), fallback.short()),
        None => alloc::format!("{}, and nothing to go back to", release.short()),
    }
}

/// A wish that a member may obey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The wish, with nothing in it that was not signed for.
    pub wish: Wish,
    /// The shortest bake.
    pub bake: Millis,
    /// To be kept before the wish is obeyed: a warrant that is newer than the one that is kept.
    pub keep: Option<Signed<Warrant>>,
}

/// Who judges what a member of this service is told.
pub struct Judge<'a> {
    /// Whom it believes.
    pub keys: &'a TrustedKeys,
    /// The member's service.
    pub service: &'a ServiceName,
    /// How one signature is checked.
    pub verify: Verify<'a>,
}

impl Judge<'_> {
    /// Whether enough keys that are trusted for it have signed something for this service.
    ///
    /// # Errors
    /// Says what is missing, and why which signature does not count.
    pub fn signatures<T: Statement>(&self, signed: &Signed<T>, moment: Moment) -> Result<(), Distrust> {
        let found = signed.of.service();
        if found != self.service {
            return Err(Distrust::OtherService { service: self.service.clone(), found: found.clone() });
        }
        let (text, needed) = (signed.of.to_text(), self.keys.threshold(T::ROLE));
        let (mut count, mut passed_over) = (0, Vec::new());
        for signature in signed.signatures() {
            match self.counts(signature, T::ROLE, &text, moment) {
                Ok(()) => count += 1,
                Err(why) => {
                    let name = self.keys.find(&signature.key).map(|key| key.name.clone());
                    passed_over.push((name.unwrap_or_else(|| signature.key.short()), why));
                }
            }
        }
        if count >= needed { Ok(()) } else { Err(Distrust::TooFew { count, needed, passed_over }) }
    }

    fn counts(&self, signature: &Signature, role: Role, text: &str, moment: Moment) -> Result<(), Useless> {
        let key = self.keys.find(&signature.key).ok_or(Useless::Unknown)?;
        if !key.roles.contains(&role) {
            return Err(Useless::OtherRole);
        }
        if !key.may_sign(role, self.service) {
            return Err(Useless::OtherService);
        }
        match moment {
            Moment::New(_) if key.revoked => return Err(Useless::Revoked),
            Moment::New(now) if key.until.is_some_and(|until| until < Day::of(now)) => {
                return Err(Useless::Expired);
            }
            Moment::New(_) | Moment::Kept => {}
        }
        let right = (self.verify)(&key.id, text.as_bytes(), &signature.bytes);
        if right { Ok(()) } else { Err(Useless::Wrong) }
    }

    /// What a member may make of a wish. `offered` is the warrant that control shows for it, `kept` the newest one that
    /// this member has accepted, `seen` the newest deploy, and `now` the time in milliseconds since 1970.
    ///
    /// # Errors
    /// Says why the wish is not to be obeyed.
    pub fn wish(
        &self,
        wish: Wish,
        offered: Option<&str>,
        kept: Option<&Signed<Warrant>>,
        seen: Option<Seen>,
        now: u64,
    ) -> Result<Allowed, Distrust> {
        let epoch = wish.seen.epoch;
        if self.keys.threshold(Role::Deploys) == 0 {
            return Ok(Allowed { wish, bake: Millis::ZERO, keep: None });
        }
        if let Some(seen) = seen.filter(|seen| seen.epoch > epoch) {
            return Err(Distrust::Old { epoch, kept: seen.epoch });
        }
        let offered = offered.ok_or(Distrust::Unsigned { epoch })?;
        let signed = Signed::<Warrant>::parse(offered)?;
        // Also when it was accepted before: who takes a key back wants that to stop what it has begun.
        self.signatures(&signed, Moment::New(now))?;
        let warrant = &signed.of;
        let known = kept.is_some_and(|kept| kept.of == *warrant);
        match kept {
            Some(kept) if !known && warrant.epoch <= kept.of.epoch => {
                return Err(Distrust::Old { epoch: warrant.epoch, kept: kept.of.epoch });
            }
            // Heard in time once, it stays accepted.
            Some(_) if known => {}
            Some(_) | None if now > warrant.expires.saturating_add(CLOCK_SKEW.0) => {
                let (epoch, expires) = (warrant.epoch, warrant.expires);
                return Err(Distrust::Expired { epoch, expires, now });
            }
            Some(_) | None => {}
        }
        let (wish, bake) = within(warrant, wish)?;
        Ok(Allowed { wish, bake, keep: (!known).then_some(signed) })
    }

    /// Whether a release may be fetched that these approvals vouch for; other texts among them do no harm.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn release<'t>(
        &self,
        release: ReleaseId,
        texts: impl IntoIterator<Item = &'t str>,
        moment: Moment,
    ) -> Result<(), Distrust> {
        if self.keys.threshold(Role::Releases) == 0 {
            return Ok(());
        }
        let mut statements: BTreeMap<Approval, Signed<Approval>> = BTreeMap::new();
        let read = texts.into_iter().filter_map(|text| Signed::<Approval>::parse(text).ok());
        for one in read.filter(|one| one.of.release == release) {
            let all = statements.entry(one.of.clone()).or_insert_with(|| Signed::new(one.of.clone()));
            // Whoever the list does not know could push others out otherwise.
            let trusted = one.signatures().iter().filter(|one| self.keys.find(&one.key).is_some());
            trusted.for_each(|signature| all.add(*signature));
        }
        let mut refused = Distrust::UnsignedRelease { release };
        for signed in statements.values() {
            match self.signatures(signed, moment) {
                Ok(()) => return Ok(()),
                Err(why) => refused = why,
            }
        }
        Err(refused)
    }

    /// Whether a release that lies on a member's disk may be launched, with the approvals and the warrant that lie
    /// beside it.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn launch(&self, release: ReleaseId, approvals: &str, warrant: Option<&str>) -> Result<(), Distrust> {
        self.release(release, signed::approvals(approvals), Moment::Kept)?;
        if self.keys.threshold(Role::Deploys) == 0 {
            return Ok(());
        }
        let epoch = Epoch::default();
        let signed = Signed::<Warrant>::parse(warrant.ok_or(Distrust::Unsigned { epoch })?)?;
        self.signatures(&signed, Moment::Kept)?;
        if signed.of.names(release) { Ok(()) } else { Err(signed.of.not_allowed(signed.of.epoch, release)) }
    }
}

impl Warrant {
    /// Whether it allows this release in one way or the other.
    pub fn names(&self, release: ReleaseId) -> bool {
        self.release == release || self.fallback == Some(release)
    }

    fn not_allowed(&self, epoch: Epoch, release: ReleaseId) -> Distrust {
        let Self { epoch: signed, release: allows, fallback, .. } = *self;
        Distrust::NotWhatWasSigned { epoch, release, signed, allows, fallback }
    }
}

/// What of a wish a warrant allows, and the shortest bake.
fn within(warrant: &Warrant, wish: Wish) -> Result<(Wish, Millis), Distrust> {
    let epoch = wish.seen.epoch;
    let own = epoch == warrant.epoch && wish.release == warrant.release;
    let follows = epoch > warrant.epoch && epoch.0 - warrant.epoch.0 <= FOLLOWING_EPOCHS_MAX;
    let answers = match wish.purpose {
        // It starts nothing.
        Purpose::Halt => warrant.names(wish.release),
        Purpose::Rollback => warrant.fallback == Some(wish.release),
        Purpose::Rollout => false,
    };
    if !(own || follows && answers) {
        return Err(warrant.not_allowed(epoch, wish.release));
    }
    // After a halt or a return nobody starts with what was halted or taken back.
    let base = wish.base.filter(|base| {
        warrant.fallback == Some(*base) || (own && wish.purpose != Purpose::Halt && warrant.release == *base)
    });
    let bake = if own { warrant.bounds.bake } else { Millis::ZERO };
    Ok((Wish { base, ..wish }, bake))
}
