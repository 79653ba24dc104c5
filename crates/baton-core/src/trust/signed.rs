//! What is signed, as text: one spelling of everything, so that who signs and who checks see the same.
//!
//! ```text
//! baton-approval 1                  baton-warrant 1
//! release 6437b3…                   service web
//! service web                       epoch 12
//! limits 1042 5                     release 6437b3…
//! signed 2d7116… 9f3a2b…            fallback 177620…
//!                                   bake 5000
//!                                   target 1000000
//!                                   max_unhealthy 250000
//!                                   expires 1765592000000
//!                                   signed 2d7116… 9f3a2b…
//! ```
//!
//! A signature is over all that comes before the first `signed`. The first line keeps the two apart: nobody who has
//! signed one has signed the other.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::Role;
use crate::deploy::Policy;
use crate::ids::{Epoch, KeyId, ReleaseId, ServiceName, SignatureBytes};
use crate::release::lines::{Lines, VERSION};
use crate::release::{Fault, Limits, Text, TextError};
use crate::target::Amount;
use crate::units::{Millis, Share};

/// Most signatures under one text: as many people as ever answer for one thing, several times over.
pub const SIGNATURES_MAX: usize = 16;
/// Longest signed text in bytes: one with all its signatures is half as long.
pub const SIGNED_BYTES_MAX: usize = 8 << 10;

/// A release that is vouched for: members that trust keys fetch no other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Approval {
    /// The release.
    pub release: ReleaseId,
    /// The service that it was made for.
    pub service: ServiceName,
    /// How much it lays out.
    pub limits: Limits,
}

/// A deploy that is answered for: what members that trust keys obey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warrant {
    /// The service whose members may obey it.
    pub service: ServiceName,
    /// The deploy's number.
    pub epoch: Epoch,
    /// What they may run.
    pub release: ReleaseId,
    /// What they may go back to, without another signature.
    pub fallback: Option<ReleaseId>,
    /// How careful the rollout is at the least.
    pub bounds: Bounds,
    /// Until when a member may hear of it for the first time, in milliseconds since 1970.
    pub expires: u64,
}

/// How careful a rollout is at the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest bake. Members hold to it, whatever control says.
    pub bake: Millis,
    /// The greatest share of the fleet that gets the release.
    pub target: Share,
    /// The greatest share of the fleet that may be unproven at once.
    pub max_unhealthy: Share,
}

impl Bounds {
    /// As careful as this policy.
    pub fn of(policy: &Policy) -> Self {
        let bake = policy.phases.iter().map(|phase| phase.bake).min().unwrap_or_default();
        // How many members there will be nobody knows: a number may be all of them.
        let target = match policy.target.amount {
            Amount::Share(share) => share,
            Amount::Members(_) => Share::ALL,
        };
        Self { bake, target, max_unhealthy: policy.max_unhealthy }
    }

    /// Whether a rollout by this policy is as careful.
    pub fn allow(&self, policy: &Policy) -> bool {
        let of = Self::of(policy);
        of.bake >= self.bake && of.target <= self.target && of.max_unhealthy <= self.max_unhealthy
    }
}

/// One key's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Whose.
    pub key: KeyId,
    /// The signature.
    pub bytes: SignatureBytes,
}

/// Something that can be signed.
#[expect(private_bounds, reason = "how lines are read is nobody else's business")]
pub trait Statement: Lined {
    /// What its text is.
    const TEXT: Text;
    /// What a key must be trusted for, so that its signature counts.
    const ROLE: Role;

    /// The service that it is about.
    fn service(&self) -> &ServiceName;

    /// What is signed.
    fn to_text(&self) -> String {
        let mut text = String::new();
        let magic = Self::TEXT.magic();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{magic} {VERSION}").and_then(|()| self.write(&mut text));
        text
    }
}

/// The lines of a statement, without the first.
trait Lined: Sized {
    fn write(&self, out: &mut String) -> fmt::Result;
    fn read(lines: &mut Lines<'_>) -> Result<Self, TextError>;
}

impl Statement for Approval {
    const TEXT: Text = Text::Approval;
    const ROLE: Role = Role::Releases;

    fn service(&self) -> &ServiceName {
        &self.service
    }
}

impl Lined for Approval {
    fn write(&self, out: &mut String) -> fmt::Result {
        let Self { release, service, limits: Limits { bytes, entries } } = self;
        write!(out, "release {release}\nservice {service}\nlimits {bytes} {entries}\n")
    }

    fn read(lines: &mut Lines<'_>) -> Result<Self, TextError> {
        let release = lines.only("release", "a release's hash")?;
        let service = lines.only("service", "a service's name")?;
        let mut words = lines.expect("limits")?;
        let limits = Limits { bytes: words.value("a number")?, entries: words.value("a number")? };
        words.end()?;
        Ok(Self { release, service, limits })
    }
}

impl Statement for Warrant {
    const TEXT: Text = Text::Warrant;
    const ROLE: Role = Role::Deploys;

    fn service(&self) -> &ServiceName {
        &self.service
    }
}

impl Lined for Warrant {
    fn write(&self, out: &mut String) -> fmt::Result {
        let Self { service, epoch, release, fallback, bounds, expires } = self;
        write!(out, "service {service}\nepoch {epoch}\nrelease {release}\n")?;
        if let Some(fallback) = fallback {
            writeln!(out, "fallback {fallback}")?;
        }
        let Bounds { bake, target, max_unhealthy } = bounds;
        writeln!(out, "bake {}\ntarget {}\nmax_unhealthy {}", bake.0, target.ppm(), max_unhealthy.ppm())?;
        writeln!(out, "expires {expires}")
    }

    fn read(lines: &mut Lines<'_>) -> Result<Self, TextError> {
        let service = lines.only("service", "a service's name")?;
        let epoch = Epoch(lines.only("epoch", "a number")?);
        let release = lines.only("release", "a release's hash")?;
        let fallback = match lines.take("fallback")? {
            Some(mut words) => {
                let fallback = words.value("a release's hash")?;
                words.end()?;
                Some(fallback)
            }
            None => None,
        };
        let bake = Millis(lines.only("bake", "a number")?);
        let target = share(lines, "target")?;
        let max_unhealthy = share(lines, "max_unhealthy")?;
        let expires = lines.only("expires", "a number")?;
        let bounds = Bounds { bake, target, max_unhealthy };
        Ok(Self { service, epoch, release, fallback, bounds, expires })
    }
}

fn share(lines: &mut Lines<'_>, key: &'static str) -> Result<Share, TextError> {
    let too_much = lines.fault(Fault::NotA { what: "a share in parts per million", text: key.into() });
    Share::from_ppm(lines.only(key, "a number")?).ok_or(too_much)
}

/// A statement, and who has signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    /// What is signed.
    pub of: T,
    /// By whom: in the order of the keys, each once.
    signatures: Vec<Signature>,
}

impl<T: Statement> Signed<T> {
    /// A statement that nobody has signed yet.
    pub const fn new(of: T) -> Self {
        Self { of, signatures: Vec::new() }
    }

    /// By whom it is signed, in the order of the keys.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature, in the place of an earlier one by the same key.
    pub fn add(&mut self, signature: Signature) {
        match self.signatures.binary_search_by_key(&signature.key, |known| known.key) {
            Ok(at) => self.signatures[at] = signature,
            Err(at) => self.signatures.insert(at, signature),
        }
    }

    /// The text, with the signatures.
    pub fn to_text(&self) -> String {
        let mut text = self.of.to_text();
        for Signature { key, bytes } in &self.signatures {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "signed {key} {bytes}");
        }
        text
    }

    /// Reads a text as [`Signed::to_text`] writes it. Whether the signatures are right is another question.
    ///
    /// # Errors
    /// Says what is wrong, and in which line.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if text.len() > SIGNED_BYTES_MAX {
            let what = Fault::TooLong { max: SIGNED_BYTES_MAX };
            return Err(TextError { text: T::TEXT, line: 1, what });
        }
        let mut lines = Lines::new(T::TEXT, text)?;
        let mut signed = Self::new(T::read(&mut lines)?);
        while !lines.is_empty() {
            let mut words = lines.expect("signed")?;
            let signature = Signature { key: words.value("a key")?, bytes: words.value("a signature")? };
            words.end()?;
            if signed.signatures.last().is_some_and(|last| last.key >= signature.key) {
                return Err(words.fault(Fault::KeyOrder));
            }
            if signed.signatures.len() == SIGNATURES_MAX {
                let max = SIGNATURES_MAX as u64;
                return Err(words.fault(Fault::TooMany { what: "signatures", max }));
            }
            signed.signatures.push(signature);
        }
        Ok(signed)
    }
}

/// The approvals that stand one after the other, as stores answer with them and members keep them.
pub fn approvals(text: &str) -> impl Iterator<Item = &str> {
    let magic = Text::Approval.magic();
    let starts = text.match_indices(magic).map(|(at, _)| at);
    let mut starts: Vec<usize> = starts.filter(|&at| at == 0 || text.as_bytes()[at - 1] == b'\n').collect();
    starts.push(text.len());
    (1..starts.len()).map(move |next| &text[starts[next - 1]..starts[next]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn warrant() -> Signed<Warrant> {
        let mut signed = Signed::new(Warrant {
            service: "web".parse().unwrap(),
            epoch: Epoch(12),
            release: ReleaseId::from_bytes([1; 32]),
            fallback: Some(ReleaseId::from_bytes([2; 32])),
            bounds: Bounds::of(&Policy::safe()),
            expires: 1_765_592_000_000,
        });
        for key in [9, 3, 9] {
            let bytes = SignatureBytes::from_bytes([key + 1; 64]);
            signed.add(Signature { key: KeyId::from_bytes([key; 32]), bytes });
        }
        signed
    }

    fn approval() -> Signed<Approval> {
        let mut signed = Signed::new(Approval {
            release: ReleaseId::from_bytes([1; 32]),
            service: "web".parse().unwrap(),
            limits: Limits { bytes: 1042, entries: 5 },
        });
        let (key, bytes) = (KeyId::from_bytes([7; 32]), SignatureBytes::from_bytes([8; 64]));
        signed.add(Signature { key, bytes });
        signed
    }

    #[test]
    fn a_signed_text_is_read_back_as_it_was_written() {
        let (warrant, approval) = (warrant(), approval());
        assert_eq!(Signed::parse(&warrant.to_text()), Ok(warrant.clone()));
        assert_eq!(Signed::parse(&approval.to_text()), Ok(approval));
        assert_eq!(warrant.signatures().len(), 2, "a key counts once");
        let none = Signed::new(Warrant { fallback: None, ..warrant.of.clone() });
        assert_eq!(Signed::parse(&none.to_text()), Ok(none));
        assert!(warrant.to_text().starts_with(&warrant.of.to_text()));
    }

    #[test]
    fn f99_every_other_spelling_is_refused() {
        let right = warrant().to_text();
        let lines: Vec<&str> = right.lines().collect();
        let (first, second) = (lines[lines.len() - 2], lines[lines.len() - 1]);
        let swapped = right.replace(&[first, "\n", second].concat(), &[second, "\n", first].concat());
        let twice = right.clone() + second + "\n";
        let many = (0..=16u8).map(|key| {
            alloc::format!(
                "signed {} {}\n",
                KeyId::from_bytes([key; 32]),
                SignatureBytes::from_bytes([0; 64])
            )
        });
        let many = warrant().of.to_text() + &many.collect::<String>();
        for (wrong, why) in [
            (right.replace("epoch 12", "epoch 012"), "one right spelling"),
            (right.replace("target 1000000", "target 1000001"), "a share"),
            (right.replace("service web", "service  web"), "a space too much"),
            (right.replace("baton-warrant 1", "baton-warrant 2"), "version"),
            (right.replace("baton-warrant 1", "baton-approval 1"), "this is not a warrant"),
            (right.replace("bake", "cake"), "bake"),
            (right.replace("signed 09", "ed25519 09"), "signed"),
            (right[..right.len() - 1].to_string(), "too early"),
            (right.clone() + "\n", "signed"),
            (swapped, "order"),
            (twice, "order"),
            (many, "more than 16 signatures"),
            (right + &"#".repeat(SIGNED_BYTES_MAX), "more than"),
            (String::new(), "this is not a warrant"),
        ] {
            let error = Signed::<Warrant>::parse(&wrong).unwrap_err();
            assert!(error.what.to_string().contains(why), "{error:?} for {why}\n{wrong}");
        }
    }

    #[test]
    fn a_policy_may_be_more_careful_than_what_was_signed_and_not_less() {
        let bounds = Bounds::of(&Policy::safe());
        let share = Share::from_percent;
        assert!(bounds.allow(&Policy {
            target: share(10).into(),
            max_unhealthy: share(1),
            ..Policy::safe()
        }));
        assert!(bounds.allow(&Policy::careful()));
        assert!(!bounds.allow(&Policy::fast()), "a shorter bake");
        assert!(!bounds.allow(&Policy { max_unhealthy: share(26), ..Policy::safe() }));
        let part = Bounds { target: share(10), ..bounds };
        assert!(!part.allow(&Policy::safe()));
    }

    #[test]
    fn approvals_that_stand_together_are_told_apart() {
        let one = approval().to_text();
        let two = [one.as_str(), "junk\n", one.as_str()].concat();
        let found: Vec<&str> = approvals(&two).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(Signed::<Approval>::parse(found[1]), Ok(approval()));
        assert!(Signed::<Approval>::parse(found[0]).is_err());
        assert_eq!(approvals("").count(), 0);
    }

    proptest! {
        #[test]
        fn p36_any_text_is_refused_or_is_the_one_of_what_it_says(
            cut in 0usize..1000, put in ".{0,8}", at in 0usize..1000
        ) {
            let mut text = warrant().to_text();
            let at = (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap();
            text.replace_range(at..at.saturating_add(cut % 4).min(text.len()), &put);
            if let Ok(read) = Signed::<Warrant>::parse(&text) {
                prop_assert_eq!(read.to_text(), text);
            }
        }
    }
}
