//! Which versions of its secrets a release is made with.

use baton_core::ids::{KeyId, ReleaseId, ServiceName};
use baton_core::run::RunSettings;
use baton_core::run::secrets::Pinned;
use baton_core::trust::{Approval, Signed};
use baton_release::manifest::{self, Known};
use baton_release::push::Prepared;
use baton_release::remote::Remote;
use baton_release::signing::{PrivateKey, check};
use baton_release::store::ArtefactStore;
use baton_wire::api::References;

use crate::context::Context;
use crate::failure::Failure;
use crate::moment::now_ms;
use crate::proposal::actor;
use crate::render;
use crate::signed::sign;

/// The settings with the versions that are current now, so that whoever launches the release later gets the same values.
///
/// # Errors
/// Control cannot read one of them, or does not let this service have it.
pub fn pinned(run: &RunSettings, service: &ServiceName, context: &Context) -> Result<RunSettings, Failure> {
    let mut run = run.clone();
    let with_versions = |pinned: &&mut Pinned| pinned.reference.aws().is_some();
    let references: Vec<String> =
        run.secrets.pinned_mut().filter(with_versions).map(|pinned| pinned.reference.to_string()).collect();
    if references.is_empty() {
        return Ok(run);
    }
    let asked = references.len();
    let service = Some(service.to_string());
    let versions = context.client.versions(&References { references, service })?;
    if versions.len() != asked {
        let (told, server) = (versions.len(), context.client.base());
        let why = format!(
            "{server} tells {told} versions of {asked} secrets: is it a Baton server of this version?"
        );
        return Err(Failure::Usage(why));
    }
    for (pinned, version) in run.secrets.pinned_mut().filter(with_versions).zip(versions) {
        if version.is_none() {
            context.ui.remark(&format!(
                "{} has no versions where it is kept: a rollback gets what is there then",
                pinned.reference
            ));
        }
        pinned.version = version;
    }
    Ok(run)
}

/// Makes the release in force anew, with its secrets as they are now: the same files, and another id.
///
/// # Errors
/// Nothing is in force, it has no secrets, control cannot read one of them, or whoever signs has not signed it before.
pub fn refresh(service: &ServiceName, keys: &[PrivateKey], context: &Context) -> Result<ReleaseId, Failure> {
    let nothing = |why: &str| Failure::Usage(format!("{why}: there are no secrets to be had anew"));
    let deploy = context.client.service(service)?.deploy;
    let deploy = deploy.ok_or_else(|| nothing(&format!("nothing was ever deployed to {service}")))?;
    let before: ReleaseId =
        deploy.release.parse().map_err(|_| nothing("control names no release that is in force"))?;
    let store = Remote::of(context.client.control());
    let mut manifest = manifest::read(before, &store, Known::default())?;
    if manifest.run.secrets.is_empty() {
        return Err(nothing(&format!("release {} has none", before.short())));
    }
    if !keys.is_empty() {
        let approvals = store.approvals(before).map_err(Failure::Sign)?;
        let ours: Vec<KeyId> = keys.iter().map(PrivateKey::id).collect();
        if manifest.service != *service || !vouched(before, service, &approvals, &ours) {
            return Err(Failure::NotSigned(format!(
                "control says that release {} is in force, and none of these keys has signed it: \
                 deploy the directory instead, or look at it and sign it with `baton key sign`",
                before.short()
            )));
        }
    }
    manifest.run = pinned(&manifest.run, service, context)?;
    // Where nothing has versions, this alone makes it another release.
    manifest.provenance.created = now_ms();
    manifest.provenance.builder = actor();
    let pushed = Prepared::again(manifest)?.send(&store, &|_| {})?;
    let (new, old) = (render::id(&pushed.id.to_string()), render::id(&before.to_string()));
    context.ui.text(&format!(
        "made release {new} of {service}: release {old} with its secrets as they are now\n"
    ))?;
    sign(pushed.id, &pushed.manifest, keys, &store, &context.ui)?;
    Ok(pushed.id)
}

/// Whether one of our keys vouches for a release that control has named: its files are about to be signed as ours.
fn vouched(release: ReleaseId, service: &ServiceName, approvals: &[String], ours: &[KeyId]) -> bool {
    approvals.iter().any(|approval| {
        let by_us = check(release, approval).is_ok_and(|key| ours.contains(&key));
        by_us && Signed::<Approval>::parse(approval).is_ok_and(|signed| signed.of.service == *service)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::release::Limits;

    #[test]
    fn p38_a_release_that_control_names_is_made_anew_only_for_who_has_signed_it() {
        let (ours, other) = (PrivateKey::from_random(&[1; 32]), PrivateKey::from_random(&[2; 32]));
        let named = ReleaseId::from_bytes([7; 32]);
        let approval = |release, service: &str, key: &PrivateKey| {
            let (service, limits) = (service.parse().unwrap(), Limits { bytes: 1, entries: 1 });
            let mut signed = Signed::new(Approval { release, service, limits });
            key.sign(&mut signed);
            signed.to_text()
        };
        let (web, ids) = ("web".parse().unwrap(), [ours.id()]);
        let good = approval(named, "web", &ours);
        let damaged = good.replace("service web", "service api");
        for (approvals, right) in [
            (vec![good.clone()], true),
            (vec![approval(named, "web", &other), good], true),
            (vec![], false),
            (vec![approval(named, "web", &other)], false),
            (vec![approval(ReleaseId::from_bytes([8; 32]), "web", &ours)], false),
            (vec![approval(named, "api", &ours)], false),
            (vec![damaged, "junk".to_owned()], false),
        ] {
            assert_eq!(vouched(named, &web, &approvals, &ids), right, "{approvals:?}");
        }
    }
}
