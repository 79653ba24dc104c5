//! What a member does before it believes control or the store: it reads whom it trusts, and asks the core.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use baton_core::bake::Bake;
use baton_core::ids::{DeployId, Epoch, ReleaseId, ServiceName};
use baton_core::member::{Input, Wish};
use baton_core::report::{Cause, Refusal, Seen};
use baton_core::run::secrets::{Keep, Pinned, Secrets};
use baton_core::trust::{
    Distrust, Judge, Moment, Role, Signed, TRUSTED_KEYS_BYTES_MAX, TrustedKeys, Warrant, approvals,
};
use baton_core::units::Millis;
use baton_release::disk::{DiskError, failed};
use baton_release::releases::{Papers, RecordError, ReleasesDir};
use baton_release::signing::verify;
use baton_release::store::ArtefactStore;

use crate::config::Control;
use crate::log;

/// What of a file's mode lets others write to it.
const OTHERS_WRITE: u32 = 0o022;

/// Something that control says, and that a member must be allowed to obey.
#[derive(Debug, Clone)]
pub enum Offer {
    /// The deploy in force.
    Wish {
        /// What it asks for.
        wish: Wish,
        /// The text of the warrant that is said to allow it.
        warrant: Option<String>,
    },
    /// A slot.
    Grant {
        /// For which deploy.
        deploy: DeployId,
        /// What the release must go through after the switch.
        bake: Bake,
    },
}

/// Why the list of trusted keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("whom this member trusts cannot be read (BATON_TRUSTED_KEYS)")]
    Disk(#[from] DiskError),
    /// Somebody else could name keys there.
    #[error("others may write to {}, and so choose whom this member trusts (BATON_TRUSTED_KEYS); run `chmod go-w` on it",
        path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
    },
    /// It has a mistake.
    #[error("{} has a mistake", path.display())]
    Mistake {
        /// The file.
        path: PathBuf,
        /// The mistake.
        #[source]
        source: baton_core::release::TextError,
    },
}

/// Where what control says comes in.
pub struct Gate {
    /// Whom the member trusts; it takes everything from everybody where nobody is named.
    keys: Option<PathBuf>,
    service: ServiceName,
    releases: Arc<ReleasesDir>,
    last: Mutex<Last>,
}

/// What came in last.
#[derive(Default)]
struct Last {
    accepted: Option<Told>,
    /// To be judged again: the list of keys may change.
    refused: Option<Told>,
}

/// A wish, and the text of its warrant.
#[derive(Clone)]
struct Told {
    wish: Wish,
    warrant: Option<String>,
}

impl Gate {
    /// The gate of this member. A list of keys with a mistake is told before anything runs.
    pub fn open(control: &Control, releases: Arc<ReleasesDir>) -> Result<Self, KeysError> {
        let (keys, service) = (control.trusted_keys.clone(), control.service.clone());
        keys.as_deref().map(read_keys).transpose()?;
        Ok(Self { keys, service, releases, last: Mutex::default() })
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a wish was refused that may be allowed later.
    pub fn has_refused(&self) -> bool {
        self.last().refused.is_some()
    }

    /// Nobody says any more what was refused.
    pub fn forget_refused(&self) {
        self.last().refused = None;
    }

    /// What the member hears of an offer; without one, of the wish that was refused last. What allows it is on disk then.
    pub fn judge(&self, offer: Option<Offer>) -> Option<Input> {
        match offer {
            Some(Offer::Wish { wish, warrant }) => Some(self.wish(Told { wish, warrant }, true)),
            Some(Offer::Grant { deploy, bake }) => Some(self.grant(deploy, bake)),
            None => {
                let refused = self.last().refused.clone();
                refused.map(|told| self.wish(told, false))
            }
        }
    }

    fn wish(&self, told: Told, is_new: bool) -> Input {
        match self.allowed(&told) {
            Ok((wish, _)) => {
                *self.last() = Last { accepted: Some(told), refused: None };
                Input::Wish(wish)
            }
            Err(refusal) => {
                let seen = told.wish.seen;
                if is_new {
                    log::say(format_args!(
                        "does not obey deploy {}: {}",
                        seen.deploy.short(),
                        refusal.detail
                    ));
                }
                self.last().refused = Some(told);
                Input::Untrusted(seen, refusal)
            }
        }
    }

    /// A slot counts while its deploy is still trusted, and the release bakes as long as was signed at the least.
    fn grant(&self, deploy: DeployId, bake: Bake) -> Input {
        let told = self.last().accepted.clone().filter(|told| told.wish.seen.deploy == deploy);
        match told.map(|told| (self.allowed(&told), told)) {
            // The member knows of no such deploy either.
            None => Input::Grant { deploy, bake },
            Some((Ok((_, shortest)), _)) => {
                Input::Grant { deploy, bake: Bake { time: bake.time.max(shortest), ..bake } }
            }
            Some((Err(refusal), told)) => {
                let seen = told.wish.seen;
                log::say(format_args!("gives up deploy {}: {}", seen.deploy.short(), refusal.detail));
                self.last().refused = Some(told);
                Input::Untrusted(seen, refusal)
            }
        }
    }

    fn allowed(&self, told: &Told) -> Result<(Wish, Millis), Refusal> {
        let Some(keys) = self.keys()? else { return Ok((told.wish, Millis::ZERO)) };
        let judge = self.judge_by(&keys);
        // Whoever can write to the disk must not keep this member from anything newer by a number without a signature.
        let kept = self.kept()?.filter(|kept| judge.signatures(kept, Moment::Kept).is_ok());
        let seen = match self.releases.seen() {
            // The member knows of that, and obeys nothing that may be older.
            Err(RecordError::Damaged { .. }) => None,
            seen => seen.map_err(|error| disk(&error))?,
        };
        let seen = seen.map(|seen| Seen { epoch: seen.epoch, deploy: seen.deploy });
        let allowed = judge
            .wish(told.wish, told.warrant.as_deref(), kept.as_ref(), seen, now())
            .map_err(|why| untrusted(&why))?;
        if let Some(warrant) = allowed.keep {
            self.releases.keep_warrant(&warrant.to_text()).map_err(|error| disk(&error))?;
        }
        Ok((allowed.wish, allowed.bake))
    }

    /// What allows a release to be fetched and launched: approvals that lie beside it or in the store, and the warrant.
    pub fn papers(&self, release: ReleaseId, store: &dyn ArtefactStore) -> Result<Papers, Refusal> {
        let beside = self.releases.papers(release).map_err(|error| disk(&error))?;
        let Some(keys) = self.keys()? else { return Ok(beside) };
        let judge = self.judge_by(&keys);
        let enough = |texts: &str| judge.release(release, approvals(texts), Moment::New(now()));
        let approvals = match enough(&beside.approvals) {
            Ok(()) => beside.approvals,
            Err(_) => {
                let stored = store
                    .approvals(release)
                    .map_err(|error| Refusal { cause: Cause::Fetch, detail: log::chain(&error) })?;
                let stored = stored.concat();
                enough(&stored).map_err(|why| untrusted(&why))?;
                stored
            }
        };
        let warrant = self.kept_text(release)?;
        if warrant.is_none() && keys.threshold(Role::Deploys) > 0 {
            let detail = "the newest signed deploy is not for it".to_owned();
            return Err(Refusal { cause: Cause::Untrusted, detail });
        }
        Ok(Papers { approvals, warrant })
    }

    /// Puts what allows a release beside it.
    pub fn keep(&self, release: ReleaseId, papers: &Papers) -> Result<(), Refusal> {
        self.releases.keep_papers(release, papers).map_err(|error| disk(&error))
    }

    /// Whether a release on this disk may be launched.
    pub fn launch(&self, release: ReleaseId) -> Result<(), Refusal> {
        let Some(keys) = self.keys()? else { return Ok(()) };
        let Papers { approvals, warrant } = self.releases.papers(release).map_err(|error| disk(&error))?;
        self.judge_by(&keys).launch(release, &approvals, warrant.as_deref()).map_err(|why| untrusted(&why))
    }

    /// Whether these secrets may be given to a program. Who trusts keys takes names of variables from who has signed, and
    /// from nobody else: a variable is enough to choose what runs, such as `LD_PRELOAD`.
    pub fn secrets(&self, secrets: &Secrets) -> Result<(), Refusal> {
        match (self.keys()?, unsigned_names(secrets)) {
            (Some(_), Some(detail)) => Err(Refusal { cause: Cause::Untrusted, detail }),
            (Some(_), None) | (None, _) => Ok(()),
        }
    }

    /// Read each time, so that a key that is taken back counts no more at once.
    fn keys(&self) -> Result<Option<TrustedKeys>, Refusal> {
        self.keys.as_deref().map(read_keys).transpose().map_err(|error| disk(&error))
    }

    fn judge_by<'a>(&'a self, keys: &'a TrustedKeys) -> Judge<'a> {
        Judge { keys, service: &self.service, verify: &verify }
    }

    /// What the newest warrant brought, and its epoch, where there is one that this member still believes.
    pub fn newest(&self) -> Option<(ReleaseId, Epoch)> {
        let keys = self.keys().ok()??;
        let kept = self.kept().ok()??;
        self.judge_by(&keys)
            .signatures(&kept, Moment::Kept)
            .is_ok()
            .then_some((kept.of.release, kept.of.epoch))
    }

    /// The newest warrant, unless what is on disk is none.
    fn kept(&self) -> Result<Option<Signed<Warrant>>, Refusal> {
        let text = self.releases.warrant().map_err(|error| disk(&error))?;
        Ok(text.and_then(|text| Signed::parse(&text).ok()))
    }

    /// The text of the newest warrant, if it is for this release.
    fn kept_text(&self, release: ReleaseId) -> Result<Option<String>, Refusal> {
        Ok(self.kept()?.filter(|kept| kept.of.names(release)).map(|kept| kept.to_text()))
    }
}

/// Which names of variables would come from who has signed nothing: from control, or from whoever writes to the disk.
fn unsigned_names(secrets: &Secrets) -> Option<String> {
    let from_control = secrets.from.iter().find(|pinned| pinned.reference.aws().is_some());
    match (from_control, secrets.keep, secrets.from.first()) {
        (Some(Pinned { reference, .. }), _, _) => Some(format!(
            "the names of the variables in {reference} are not signed: name each in [secrets.env] instead of secrets.from"
        )),
        (None, Keep::Disk, Some(Pinned { reference, .. })) => Some(format!(
            "the names of the variables in {reference} would be kept on disk, where they are not signed: name each in \
             [secrets.env] instead of secrets.from, or leave out secrets.keep"
        )),
        (None, Keep::Disk, None) | (None, Keep::Memory, _) => None,
    }
}

fn read_keys(path: &Path) -> Result<TrustedKeys, KeysError> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed("open", path))?;
    // Of what was opened, whatever lies there by now.
    if file.metadata().map_err(failed("look at", path))?.mode() & OTHERS_WRITE != 0 {
        return Err(KeysError::Unsafe { path: path.to_owned() });
    }
    // One byte more than there may be is enough to see that there is too much.
    file.take(TRUSTED_KEYS_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(failed("read", path))?;
    let text = String::from_utf8_lossy(&text);
    TrustedKeys::parse(&text).map_err(|source| KeysError::Mistake { path: path.to_owned(), source })
}

fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

fn untrusted(why: &Distrust) -> Refusal {
    Refusal { cause: Cause::Untrusted, detail: log::chain(why) }
}

fn disk(error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal { cause: Cause::Disk, detail: log::chain(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use baton_core::run::secrets::Reference;

    #[test]
    fn p47_a_list_of_keys_that_others_may_write_to_is_refused() {
        let keys = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), "baton-trusted-keys 1\nthreshold releases 1\nthreshold deploys 0\n")
            .unwrap();
        for (mode, is_safe) in [(0o600, true), (0o444, true), (0o644, true), (0o664, false), (0o646, false)] {
            std::fs::set_permissions(keys.path(), Permissions::from_mode(mode)).unwrap();
            let read = read_keys(keys.path());
            assert_eq!(read.is_ok(), is_safe, "{mode:o}: {read:?}");
            assert!(is_safe || read.unwrap_err().to_string().contains("run `chmod go-w` on it"));
        }
    }

    #[test]
    fn p38_who_trusts_keys_takes_no_names_of_variables_from_control_or_from_the_disk() {
        let (dir, keys) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        let list = "baton-trusted-keys 1\nthreshold releases 1\nthreshold deploys 0\n";
        std::fs::write(keys.path(), list).unwrap();
        let gate = |keys| Gate {
            keys,
            service: "web".parse().unwrap(),
            releases: Arc::new(ReleasesDir::open(dir.path()).unwrap()),
            last: Mutex::default(),
        };
        let (file, env, s3) = ("file:/one.json", "env:MERGED", "s3://bucket/web.json");
        let cases: [(&[&str], Keep, Option<&str>); 8] = [
            (&[], Keep::Memory, None),
            (&[], Keep::Disk, None),
            (&[file, env], Keep::Memory, None),
            (&[file], Keep::Disk, Some("file:/one.json would be kept on disk")),
            (&[env], Keep::Disk, Some("env:MERGED would be kept on disk")),
            (&[s3], Keep::Memory, Some("s3://bucket/web.json are not signed")),
            (&[file, s3], Keep::Memory, Some("s3://bucket/web.json are not signed")),
            (&[file, s3], Keep::Disk, Some("s3://bucket/web.json are not signed")),
        ];
        let refused = |gate: &Gate, from: &[&str], keep| {
            let from = from.iter().map(|text| text.parse::<Reference>().unwrap().into()).collect();
            let env = [("TOKEN".to_owned(), "env:X".parse::<Reference>().unwrap().into())].into();
            gate.secrets(&Secrets { from, env, keep }).err().map(|refusal| refusal.detail)
        };
        let trusting = gate(Some(keys.path().to_owned()));
        for (from, keep, why) in cases {
            let told = refused(&trusting, from, keep);
            assert_eq!(told.is_some(), why.is_some(), "{from:?} {keep:?}: {told:?}");
            assert!(told.as_deref().unwrap_or_default().contains(why.unwrap_or_default()), "{told:?}");
        }
        drop(trusting);
        let open = gate(None);
        assert!(cases.iter().all(|(from, keep, _)| refused(&open, from, *keep).is_none()));
    }
}
