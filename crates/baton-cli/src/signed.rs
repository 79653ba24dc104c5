//! What is signed here, before it goes to control. Private keys never do.

use baton_core::history::TagName;
use baton_core::ids::{Epoch, KeyId, ReleaseId, ServiceName};
use baton_core::release::Manifest;
use baton_core::trust::{Approval, Bounds, Signed, Warrant};
use baton_core::units::{Millis, Share};
use baton_release::signing::PrivateKey;
use baton_release::store::ArtefactStore;
use baton_wire::access::PendingView;
use baton_wire::api::{DeployView, PolicyView, Propose, Refused};

use crate::args::Signing;
use crate::client::ClientError;
use crate::context::Context;
use crate::failure::{Failure, chain};
use crate::moment::now_ms;
use crate::render;
use crate::ui::Ui;

/// How often a deploy is signed anew because something has changed since it was looked at.
const ATTEMPTS_MAX: u32 = 5;
/// The fewest digits that name a release.
const DIGITS_MIN: usize = 4;
/// The greatest number that is signed. No fleet comes near it; whoever is told a greater one is lied to, and no deploy
/// would ever be newer.
const EPOCH_MAX: Epoch = Epoch(1 << 53);

/// Signs a release with each key, in the store.
///
/// # Errors
/// The store does not take a signature; the release is there all the same.
pub fn sign(
    id: ReleaseId,
    manifest: &Manifest,
    keys: &[PrivateKey],
    store: &dyn ArtefactStore,
    ui: &Ui,
) -> Result<(), Failure> {
    for key in keys {
        let (service, limits) = (manifest.service.clone(), manifest.tree.limits());
        let mut signed = Signed::new(Approval { release: id, service, limits });
        key.sign(&mut signed);
        store.sign(id, &signed.to_text()).map_err(Failure::Sign)?;
        ui.text(&format!("signed release {} with key {}\n", id.short(), key.id().short()))?;
    }
    Ok(())
}

/// Proposes a deploy, signed if there is a key.
///
/// # Errors
/// Control refuses it, or it is not what whoever signs wants.
pub fn propose(
    context: &Context,
    service: &ServiceName,
    proposal: Propose,
    keys: &[PrivateKey],
    signing: &Signing,
) -> Result<DeployView, Failure> {
    if keys.is_empty() || signing.unsigned {
        if signing.fallback.is_some() {
            return Err(Failure::Usage("--fallback says what is signed: name a key with --key".to_owned()));
        }
        let proposal = Propose { unsigned: signing.unsigned, ..proposal };
        return Ok(context.client.propose(service, &proposal)?);
    }
    let (deploy, signed) = sign_until_taken(
        service,
        &proposal,
        keys,
        signing,
        |preview| Ok(context.client.preview(service, preview)?.deploy),
        |proposal| context.client.propose(service, proposal),
    )?;
    context.ui.text(&signed_by(&signed))?;
    Ok(deploy)
}

/// Signs what control would deploy, and proposes that. What has changed meanwhile is signed anew, as long as it comes after the
/// deploy that was in force when this began: whoever signs has not seen another one, and does not replace it unawares.
fn sign_until_taken(
    service: &ServiceName,
    proposal: &Propose,
    keys: &[PrivateKey],
    signing: &Signing,
    look: impl Fn(&Propose) -> Result<Option<DeployView>, ClientError>,
    propose: impl Fn(&Propose) -> Result<DeployView, ClientError>,
) -> Result<(DeployView, Signed<Warrant>), Failure> {
    let preview = Propose { dry_run: true, ..proposal.clone() };
    let look = || {
        look(&preview)?.ok_or_else(|| {
            Failure::NotSigned("the server does not say what it would deploy: update it".to_owned())
        })
    };
    let mut would_be = look()?;
    let mut attempt = 1;
    loop {
        let mut signed = Signed::new(warrant(service, &would_be, proposal, signing)?);
        keys.iter().for_each(|key| key.sign(&mut signed));
        let asked =
            Propose { parent: would_be.parent.clone(), warrant: Some(signed.to_text()), ..proposal.clone() };
        match propose(&asked) {
            Err(ClientError::Refused { status: 409, .. }) if attempt < ATTEMPTS_MAX => {
                let now = look()?;
                if now.parent != would_be.parent {
                    return Err(another_first(&now));
                }
                (would_be, attempt) = (now, attempt + 1);
            }
            answer => return Ok((answer?, signed)),
        }
    }
}

/// Somebody was faster, or control itself has stopped or taken back what was in force.
fn another_first(now: &DeployView) -> Failure {
    let parent = now.parent.as_deref().map_or("none is in force".to_owned(), render::id);
    let message = format!("another deploy came first ({parent}): look at the status and try again");
    let refused = Refused { code: "conflict".to_owned(), message };
    Failure::Client(ClientError::Refused { status: 409, refused })
}

/// The warrant of a deploy that waits for a second person, signed by these keys too: it is of the release that is named here,
/// whatever control shows.
///
/// # Errors
/// It is something else, or nobody has signed it.
pub fn sign_too(
    pending: &PendingView,
    release: &str,
    keys: &[PrivateKey],
) -> Result<Signed<Warrant>, Failure> {
    let not = |why: String| Err(Failure::NotSigned(why));
    if keys.is_empty() {
        return Err(Failure::Usage("--release says what is signed: name a key with --key".to_owned()));
    }
    let Some(text) = &pending.asked.warrant else {
        return not("who has asked for it has not signed it: it is asked for with --key first".to_owned());
    };
    let parsed = Signed::<Warrant>::parse(text);
    let mut signed =
        parsed.map_err(|error| Failure::NotSigned(format!("the server answers: {}", chain(&error))))?;
    let of = &signed.of;
    if of.service.as_str() != pending.service {
        return not(format!(
            "what waits is of service {}, and was signed for {}",
            pending.service, of.service
        ));
    }
    if release.len() < DIGITS_MIN || !of.release.to_string().starts_with(release) {
        return not(format!("it is of release {} instead of {release}", of.release.short()));
    }
    if of.epoch > EPOCH_MAX {
        return not(format!("the server wants the deploy to be number {}", of.epoch));
    }
    if of.expires <= now_ms() {
        return not(
            "members may not hear of it any more: it is asked for again with a longer --valid".to_owned()
        );
    }
    keys.iter().for_each(|key| key.sign(&mut signed));
    Ok(signed)
}

/// What was signed, and by whom.
pub fn signed_by(signed: &Signed<Warrant>) -> String {
    said(&signed.of, signed.signatures().iter().map(|signature| signature.key))
}

/// What is signed: what control says it would deploy, where that is what was asked for.
fn warrant(
    service: &ServiceName,
    would_be: &DeployView,
    asked: &Propose,
    signing: &Signing,
) -> Result<Warrant, Failure> {
    let not = |why: String| Err(Failure::NotSigned(why));
    let id = |text: &str| {
        text.parse::<ReleaseId>().map_err(|error| Failure::NotSigned(format!("the server answers: {error}")))
    };
    let release = id(&would_be.release)?;
    if would_be.service != service.as_str() {
        return not(format!("the server would deploy to service {}", would_be.service));
    }
    if let Some(wanted) = asked.release.as_deref().filter(|wanted| !would_be.release.starts_with(*wanted)) {
        let what = match wanted.parse::<TagName>() {
            Ok(tag) => format!(
                "the server says that {tag} is release {}: whoever signs names a release by its id",
                release.short()
            ),
            Err(_) => format!("the server would deploy release {} instead of {wanted}", release.short()),
        };
        return not(what);
    }
    if Epoch(would_be.epoch) > EPOCH_MAX {
        return not(format!("the server wants the deploy to be number {}", would_be.epoch));
    }
    let fallback = would_be.fallback.as_deref().map(id).transpose()?;
    let fallback = match (signing.fallback.as_deref(), fallback) {
        (None, fallback) => fallback,
        (Some("none"), _) => None,
        (Some(wanted), Some(fallback)) if fallback.to_string().starts_with(wanted) => Some(fallback),
        (Some(wanted), found) => {
            let found =
                found.map_or_else(|| "to nothing".to_owned(), |found| format!("to {}", found.short()));
            return not(format!("control would go back {found} instead of {wanted}"));
        }
    };
    // A rollback is of a release that has baked here before, and takes no time to bake.
    let bounds = bounds(asked.policy.as_ref().unwrap_or(&would_be.policy), would_be.kind == "rollback")?;
    let expires = now_ms().saturating_add(signing.valid.0);
    Ok(Warrant { service: service.clone(), epoch: Epoch(would_be.epoch), release, fallback, bounds, expires })
}

fn bounds(policy: &PolicyView, rollback: bool) -> Result<Bounds, Failure> {
    let share = |ppm| {
        Share::from_ppm(ppm)
            .ok_or_else(|| Failure::NotSigned("the server answers a share of more than all".to_owned()))
    };
    let bake = policy.phases.iter().map(|phase| Millis(phase.bake_ms)).min();
    Ok(Bounds {
        bake: bake.filter(|_| !rollback).unwrap_or_default(),
        target: share(policy.target_ppm)?,
        max_unhealthy: share(policy.max_unhealthy_ppm)?,
    })
}

fn said(warrant: &Warrant, keys: impl Iterator<Item = KeyId>) -> String {
    let by: Vec<String> = keys.map(|key| key.short()).collect();
    let back = warrant
        .fallback
        .map_or_else(|| "with no way back".to_owned(), |to| format!("back to {}", to.short()));
    format!(
        "signed deploy {}: release {}, {back}, with key {}\n",
        warrant.epoch,
        warrant.release.short(),
        by.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::args::Keys;
    use crate::exit::Exit;
    use crate::proposal::proposal;
    use crate::sample;
    use baton_wire::api::Wanted;

    fn signing(fallback: Option<&str>) -> Signing {
        Signing {
            keys: Keys { files: Vec::new() },
            valid: Millis::from_secs(3600),
            fallback: fallback.map(str::to_owned),
            unsigned: false,
        }
    }

    fn rollout_of(release: &str) -> Propose {
        Propose { release: Some(release.to_owned()), ..proposal(Wanted::Rollout, String::new()).unwrap() }
    }

    /// What comes of signing where control answers a look after the other with these, and refuses one proposal after the other
    /// by these words; and how often it was proposed.
    fn tried(looks: &[DeployView], refusals: &[&str]) -> (Result<DeployView, Failure>, usize) {
        let (looks, tries) = (RefCell::new(looks.iter()), Cell::new(0));
        let key = PrivateKey::from_random(&[1; 32]);
        let done = sign_until_taken(
            &"web".parse().unwrap(),
            &rollout_of("9f3a2b"),
            &[key],
            &signing(None),
            |preview| {
                assert!(preview.dry_run && preview.warrant.is_none());
                Ok(looks.borrow_mut().next().cloned())
            },
            |asked| {
                assert!(asked.warrant.is_some() && !asked.dry_run);
                let refusal = refusals.get(tries.replace(tries.get() + 1));
                let Some(code) = refusal else { return Ok(sample::deploy()) };
                let refused = Refused { code: (*code).to_owned(), message: format!("it is {code}") };
                Err(ClientError::Refused { status: 409, refused })
            },
        );
        (done.map(|(deploy, _)| deploy), tries.get())
    }

    #[test]
    fn p16_what_has_changed_is_signed_anew_only_after_the_same_deploy() {
        let after = |parent: &str| DeployView { parent: Some(parent.repeat(16)), ..sample::deploy() };
        let (one, other) = (after("1a"), after("2b"));
        let (taken, tries) = tried(&[one.clone(), one.clone()], &["other-warrant"]);
        assert_eq!((taken.unwrap(), tries), (sample::deploy(), 2));
        // Somebody else has deployed, halted or gone back meanwhile: that is not replaced.
        for (looks, refusals) in [
            (&[one.clone(), other.clone()][..], &["conflict"][..]),
            (&[one.clone(), other.clone()], &["other-warrant"]),
            (&[sample::deploy(), other], &["other-warrant"]),
        ] {
            let (refused, tries) = tried(looks, refusals);
            let refused = refused.unwrap_err();
            assert_eq!((refused.exit(), refused.code(), tries), (Exit::Conflict, "conflict", 1));
        }
        let (refused, _) = tried(&[one.clone(), after("2b")], &["other-warrant"]);
        let named = refused.unwrap_err().message();
        assert!(named.contains("another deploy came first (2b2b2b2b2b2b)"), "{named}");
        let (refused, tries) = tried(&std::array::from_fn::<_, 9, _>(|_| one.clone()), &["other-warrant"; 9]);
        assert_eq!((refused.unwrap_err().exit(), tries), (Exit::Conflict, 5));
    }

    /// What comes of signing this answer of control, when this release was asked for.
    fn signed(would_be: &DeployView, release: &str, fallback: Option<&str>) -> Result<Warrant, String> {
        let service = "web".parse().unwrap();
        warrant(&service, would_be, &rollout_of(release), &signing(fallback))
            .map_err(|failure| failure.message())
    }

    #[test]
    fn p38_only_what_was_asked_for_is_signed_whatever_control_answers() {
        let back = "11".repeat(32);
        let right = DeployView { fallback: Some(back.clone()), ..sample::deploy() };
        let warrant = signed(&right, "9f3a2b", None).unwrap();
        assert_eq!((warrant.epoch, warrant.release.to_string()), (Epoch(5), sample::release()));
        assert_eq!(warrant.fallback.unwrap().to_string(), back);
        assert_eq!(signed(&right, "9f3a", Some("1111")).unwrap().fallback, warrant.fallback);
        assert_eq!(signed(&right, "9f3a", Some("none")).unwrap().fallback, None);
        let tagged = signed(&right, "production", None).unwrap_err();
        assert!(tagged.contains("names a release by its id"), "{tagged}");
        for (lie, why) in [
            (DeployView { release: back, ..right.clone() }, "instead of 9f3a2b"),
            (DeployView { service: "mail".to_owned(), ..right.clone() }, "service mail"),
            (DeployView { epoch: u64::MAX, ..right.clone() }, "number"),
            (DeployView { fallback: Some("22".repeat(32)), ..right.clone() }, "instead of 1111"),
            (DeployView { fallback: None, ..right }, "to nothing instead of 1111"),
        ] {
            let refused = signed(&lie, "9f3a2b", Some("1111")).unwrap_err();
            assert!(refused.contains(why), "{refused} for {why}");
        }
    }

    #[test]
    fn p38_p40_a_second_person_signs_only_what_they_have_named() {
        let [ada, grace] = [1, 2].map(|seed| PrivateKey::from_random(&[seed; 32]));
        let of = signed(&sample::deploy(), "9f3a2b", None).unwrap();
        let mut by_ada = Signed::new(of);
        ada.sign(&mut by_ada);
        let asked =
            Propose { warrant: Some(by_ada.to_text()), ..proposal(Wanted::Rollout, String::new()).unwrap() };
        let pending = PendingView {
            id: "0".repeat(12),
            service: "web".to_owned(),
            asked_by: "ada".to_owned(),
            at_ms: 1,
            ends_ms: 2,
            approved_by: None,
            decided_ms: None,
            asked,
            overtaken_by: None,
        };
        let keys = std::slice::from_ref(&grace);
        let both = sign_too(&pending, "9f3a2b", keys).unwrap();
        assert_eq!((both.signatures().len(), &both.of), (2, &by_ada.of));
        let with = |change: fn(&mut PendingView)| {
            let mut other = pending.clone();
            change(&mut other);
            other
        };
        let old = by_ada.to_text().replace(&format!("expires {}", by_ada.of.expires), "expires 1");
        for (pending, release, why) in [
            (pending.clone(), "1111", "instead of 1111"),
            (pending.clone(), "9f", "instead of 9f"),
            (pending.clone(), "", "instead of"),
            (with(|pending| pending.service = "api".to_owned()), "9f3a2b", "signed for web"),
            (with(|pending| pending.asked.warrant = None), "9f3a2b", "has not signed it"),
            (with(|pending| pending.asked.warrant = Some("x".to_owned())), "9f3a2b", "the server answers"),
        ] {
            let refused = sign_too(&pending, release, keys).unwrap_err().message();
            assert!(refused.contains(why), "{refused} for {why}");
        }
        let mut late = pending.clone();
        late.asked.warrant = Some(old);
        assert!(sign_too(&late, "9f3a2b", keys).unwrap_err().message().contains("longer --valid"));
        assert!(sign_too(&pending, "9f3a2b", &[]).is_err());
    }

    #[test]
    fn a_rollback_is_signed_without_a_bake() {
        let policy = sample::deploy().policy;
        assert_eq!(bounds(&policy, false).unwrap().bake, Millis(5000));
        assert_eq!(bounds(&policy, true).unwrap().bake, Millis::ZERO);
    }
}
