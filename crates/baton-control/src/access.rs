//! Who may do what here: the tokens that were given out, the credentials of members, and the book in which that is kept.
//!
//! Everything that is asked passes one place, [`doorman::check`], which looks at one table, that of the [`doors`].

mod book;
mod caller;
pub(crate) mod doorman;
pub(crate) mod doors;
mod ledger;
mod limits;
mod lineage;
mod merge;
mod seal;

use std::fs;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use baton_core::access::{
    Credential, CredentialKey, Fingerprint, Role, Scope, Shown, Standing, TOKEN_BYTES, Token,
};
use baton_core::ids::{HolderName, MemberId, PendingId, ServiceName, TokenHash, TokenId};
use baton_core::run::secrets::Secret;
use baton_release::disk::{DiskError, replace_private};
use baton_wire::access::{BadBook, StoredJoin};
use tokio::sync::watch;

use self::book::Protected;
pub(crate) use self::book::{Book, Held, Pending};
use self::ledger::Ledger;
pub(crate) use self::ledger::{FILES, Place, TakenBack};
pub use self::ledger::{LedgerError, Unreadable};
use self::lineage::{Lineage, Reused};
pub use self::seal::SealError;
pub(crate) use self::seal::SealKey;
pub(crate) use caller::Caller;

use crate::api::Refusal;
use crate::chain::chain;
use crate::clock::unix_ms;
use crate::identity::{Identity, Missing, Part};
use crate::tls::{Authority, TlsError};

/// Whose the first token is.
const FIRST_HOLDER: &str = "first-admin";
/// Most tokens at once: far more than anybody can keep track of.
const TOKENS_MAX: usize = 10_000;

/// Most deploys that wait for a second person: each is a few kilobytes of a file that is written whole.
const PENDING_MAX: usize = 100;
/// Most of those that one caller has asked for: nobody alone keeps everybody else's from waiting.
const PENDING_OF_ONE_MAX: usize = 20;

/// Why nobody can be told apart.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is in the file is not what this program wrote.
    #[error("cannot use the list of tokens in {}", path.display())]
    Book {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BadBook,
    },
    /// The data directory is not whole.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A server that has a list for itself is to share another one.
    #[error(
        "there is a list of tokens in {}, and another one in the state store: move the file away to use the one that servers share: \
         members of this server need new tokens then",
        path.display()
    )]
    Apart {
        /// The file.
        path: PathBuf,
    },
    /// A server that shared a list is to have one for itself.
    #[error(
        "the list of tokens that this server shared with others is in {}, sealed: start it with --state and --seal-key-file as \
         before, or move the file away to begin a new list, with which all tokens and members have to come anew",
        path.display()
    )]
    Left {
        /// The file.
        path: PathBuf,
    },
    /// The list that servers share cannot be used.
    #[error("cannot share the list of tokens")]
    Kept(#[source] LedgerError),
    /// There is no authority.
    #[error("cannot make an authority")]
    Authority(#[from] TlsError),
    /// There are no random numbers to be had.
    #[error("the system has no random numbers")]
    Randomness(#[source] getrandom::Error),
}

impl From<LedgerError> for AccessError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Disk(error) => Self::Disk(error),
            error => Self::Kept(error),
        }
    }
}

/// Who may do what.
pub(crate) struct Access {
    ledger: Ledger,
    authority: Option<Authority>,
    lineage: Lineage,
}

/// A token that is worth nothing any more.
#[derive(Debug)]
pub(crate) struct Revoked {
    /// What it was.
    pub held: Held,
    /// Whether it was worth something until now.
    pub is_new: bool,
}

/// A deploy that waits for a second person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    /// Which one.
    pub id: PendingId,
    /// Whether it did not wait before.
    pub is_new: bool,
}

/// What a caller shows is worth nothing.
fn unknown(why: &str) -> Refusal {
    let text = format!("{why}: send `Authorization: Bearer TOKEN`, with a token from `baton token create`");
    Refusal::new(StatusCode::UNAUTHORIZED, "no-credentials", text)
}

/// What a member shows is worth nothing any more.
fn ended() -> Refusal {
    unknown("this member's credential has ended: it needs a new token, from `baton token join`")
}

impl Access {
    /// Opens the list of tokens of a server with this data directory, which has an authority of its own if `own`. Where there
    /// is no list yet, there is one afterwards, and in the data directory a file with the first token, that of an admin.
    ///
    /// # Errors
    /// The list cannot be read, or a new one not be kept, or a part of the directory is missing.
    pub(crate) fn open(data_dir: &Path, place: Place, own: bool) -> Result<Self, AccessError> {
        let identity = Identity::open(data_dir)?;
        let shared = matches!(place, Place::Store { .. });
        let authority = match own && !shared {
            true => {
                identity.check(Part::Authority)?;
                Some(Authority::in_folder(data_dir)?)
            }
            false => None,
        };
        let begin = || {
            identity.check(Part::Tokens)?;
            match own && shared {
                true => begin(data_dir, Some(&Authority::make()?), true),
                false => begin(data_dir, authority.as_ref(), false),
            }
        };
        let ledger = Ledger::open(data_dir, place, begin)?;
        let authority = match own && shared {
            true => Some(shared_authority(&ledger, data_dir)?),
            false => authority,
        };
        identity.keep()?;
        Ok(Self { ledger, authority, lineage: Lineage::default() })
    }

    /// The authority that vouches for this server, where that is its own.
    pub(crate) const fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Its fingerprint.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.authority.as_ref().map(Authority::fingerprint)
    }

    /// Takes in what other servers have changed. Blocks.
    ///
    /// # Errors
    /// Why that is not known, in words. What was known counts meanwhile.
    pub(crate) fn refresh(&self) -> Result<(), String> {
        self.ledger.refresh().map_err(|error| chain(&error))
    }

    /// Where the servers have agreed on another authority than this one vouches with: what that is, and what to do. It happens
    /// where lists that were begun apart have met.
    pub(crate) fn other_authority(&self) -> Option<String> {
        let (ours, agreed) = (self.authority.as_ref()?, self.book().authority.clone()?);
        (*ours != agreed).then(|| {
            format!(
                "the servers have agreed on the older authority {}, and this server uses {} until it is restarted: restart it, \
                 and give a new token or ca.pem to whoever believes the other one",
                agreed.fingerprint(),
                ours.fingerprint()
            )
        })
    }

    /// Who sends this.
    ///
    /// # Errors
    /// Nobody that is known, or not any more.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<Caller, Refusal> {
        let value = headers.get(AUTHORIZATION).ok_or_else(|| unknown("this needs a token"))?;
        let shown = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        let shown = shown.ok_or_else(|| unknown("the Authorization header is not understood"))?;
        self.caller(shown, unix_ms())
    }

    fn caller(&self, shown: &str, now: u64) -> Result<Caller, Refusal> {
        if let Some(hash) = Shown::hash(shown) {
            let held = self.book().tokens.get(&hash).cloned();
            let held = held.filter(|held| held.token.is_valid(now));
            return held
                .map(|held| Caller::Holder(held.token))
                .ok_or_else(|| unknown("this token is not known, or has ended"));
        }
        let credential =
            self.book().key.open(shown).map_err(|_| unknown("what was sent is no token of this server"))?;
        let caller = match credential.standing(now) {
            Standing::Valid if !self.is_revoked(&credential) => Caller::Member(credential.clone()),
            Standing::Renewable if !self.is_revoked(&credential) => Caller::Late(credential.clone()),
            Standing::Valid | Standing::Renewable | Standing::Ended => return Err(ended()),
        };
        self.lineage.shown(&credential);
        Ok(caller)
    }

    /// Whether who was let in a while ago still would be: what is open for long is asked so.
    pub(crate) fn still_knows(&self, caller: &Caller, now: u64) -> bool {
        match caller {
            Caller::Anybody => true,
            Caller::Holder(token) => token.is_valid(now) && self.book().tokens.contains_key(&token.hash),
            Caller::Member(credential) | Caller::Late(credential) => {
                credential.standing(now) == Standing::Valid && !self.is_revoked(credential)
            }
        }
    }

    /// Where it is told that this may have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Book>> {
        self.ledger.changes()
    }

    fn is_revoked(&self, credential: &Credential) -> bool {
        is_revoked(&self.book(), credential)
    }

    /// All tokens that have not ended, with the members that they have made.
    pub(crate) fn tokens(&self) -> Vec<Held> {
        let now = unix_ms();
        self.book().tokens.values().filter(|held| held.token.is_valid(now)).cloned().collect()
    }

    /// Keeps a token. Blocks; it is durable on return.
    ///
    /// # Errors
    /// Another one has its hash, or had it and was revoked, there are too many, or the disk fails.
    pub(crate) fn make(&self, token: &Token) -> Result<Token, Refusal> {
        self.ledger.change(|book| {
            let taken = |why: &str| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "key-taken", why);
            if book.gone.contains_key(&token.hash) {
                return Err(taken("the token with this hash was revoked: draw new random bytes"));
            }
            if let Some(known) = book.tokens.get(&token.hash) {
                // Asked again, since the answer was lost: the same token, as it was made then.
                let same = Token { created: token.created, expires: token.expires, ..(*known.token).clone() };
                return match same == *token {
                    true => Ok((*known.token).clone()),
                    false => Err(taken("there is another token with this hash: draw new random bytes")),
                };
            }
            if book.tokens.len() >= TOKENS_MAX {
                let text = format!("there are {TOKENS_MAX} tokens: revoke some with `baton token revoke`");
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "too-many", text));
            }
            book.tokens.insert(token.hash, Held { token: Arc::new(token.clone()), joined: None });
            Ok(token.clone())
        })
    }

    /// Makes a token worth nothing; asked again within a day it is the same. Blocks; it is durable on return, or what comes back
    /// says how far it is not.
    ///
    /// # Errors
    /// There is none with this id, or nobody could make tokens any more.
    pub(crate) fn revoke(&self, id: TokenId) -> Result<TakenBack<Revoked>, Refusal> {
        let mut is_new = false;
        let TakenBack { what: held, only_here } = self.ledger.take_back(|book| {
            let now = unix_ms();
            if book.is_last_admin(id, now) {
                return Err(last_admin(id));
            }
            // What counts here already is taken back once more where it is kept.
            is_new |= book.has_token(id);
            let gone = book.revoke_token(id, now);
            gone.ok_or_else(|| Refusal::not_found(format!("there is no token {id}: see `baton token list`")))
        })?;
        Ok(TakenBack { what: Revoked { held, is_new }, only_here })
    }

    /// Makes another first token, in the same file as the first one was: where nobody could make tokens any more, since those of
    /// all admins have ended, or servers that share the list have each revoked one that the other one had left; and where that
    /// file is there and empty, which is how one is asked for whose tokens are lost. Whoever can make that file and start the
    /// server has its data directory, and so has everything already. Blocks; it is durable on return.
    ///
    /// # Errors
    /// The disk or the store fails.
    pub(crate) fn let_in(&self, data_dir: &Path) -> Result<Option<Token>, AccessError> {
        let file = first_token(data_dir);
        let is_asked = fs::metadata(&file).is_ok_and(|file| file.len() == 0);
        let is_needed = |book: &Book| is_asked || !book.has_admin(unix_ms());
        if !is_needed(&self.book()) {
            return Ok(None);
        }
        let Some(first) = FirstToken::draw(self.fingerprint(), unix_ms())? else { return Ok(None) };
        first.write(data_dir)?;
        let token = Arc::new(first.token);
        let kept = self.ledger.change(|book| {
            // Another server may have been faster.
            let is_needed = is_needed(book);
            if is_needed {
                book.tokens.insert(token.hash, Held { token: Arc::clone(&token), joined: None });
            }
            Ok::<_, LedgerError>(is_needed)
        });
        match kept {
            Ok(true) => {}
            // What is in the file is nobody's, and what was asked for is so still.
            Err(_) if is_asked => drop(fs::write(&file, "")),
            Ok(false) | Err(_) => drop(fs::remove_file(&file)),
        }
        Ok(kept?.then(|| (*token).clone()))
    }

    /// Makes what a member has worth nothing, so that it needs a new token. Blocks; it is durable on return, or what comes back
    /// says how far it is not.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn revoke_member(
        &self,
        service: &ServiceName,
        member: &MemberId,
    ) -> Result<TakenBack<()>, Refusal> {
        self.ledger.take_back(|book| {
            let joined = |held: &Held| {
                held.joined.as_ref().is_some_and(|joined| {
                    joined.service == service.as_str() && joined.member == member.as_str()
                })
            };
            // Who has the key of its join could come back with it.
            let used = book.tokens.iter().filter(|(_, held)| joined(held)).map(|(hash, _)| *hash);
            for hash in used.collect::<Vec<_>>() {
                book.end_token(hash, unix_ms());
            }
            book.revoke(service.clone(), member.clone(), unix_ms());
            Ok(())
        })
    }

    /// Makes a member of who has a token for it, and says whether it was not one by that token already. Blocks; it is durable on
    /// return.
    ///
    /// # Errors
    /// The token is for others, or was used by somebody else, or the disk fails.
    pub(crate) fn join(
        &self,
        token: &Token,
        service: &ServiceName,
        member: &MemberId,
        key: &str,
    ) -> Result<(Secret, bool), Refusal> {
        let refused = |text: String| Refusal::new(StatusCode::FORBIDDEN, "not-allowed", text);
        if !token.scope.covers(service) {
            return Err(refused(format!("this token makes no members of service {service}")));
        }
        if token.member.as_ref().is_some_and(|only| only != member) {
            return Err(refused(format!("this token makes another member than {member}")));
        }
        let key = TokenHash::of(key.as_bytes()).to_string();
        let (service_name, member_name) = (service.to_string(), member.to_string());
        let now = unix_ms();
        let joined = StoredJoin { service: service_name, member: member_name, key, at_ms: now };
        let same = |known: &StoredJoin| StoredJoin { at_ms: known.at_ms, ..joined.clone() } == *known;
        self.ledger.change(|book| {
            let held = book.tokens.get_mut(&token.hash);
            let held = held.ok_or_else(|| unknown("this token was revoked, or has ended"))?;
            let is_new = match held.joined.as_ref().filter(|_| !token.reusable) {
                Some(known) if !same(known) => {
                    return Err(Refusal::new(
                        StatusCode::FORBIDDEN,
                        "token-used",
                        "this token was used already, by another process: make a new one with `baton token join`",
                    ));
                }
                Some(_) => false,
                // Who has made how many members with it is in the audit log alone.
                None if token.reusable => true,
                None => {
                    held.joined = Some(joined.clone());
                    true
                }
            };
            // Before anybody can revoke it: a later revocation is of this one too.
            let issued = issued_at(book, service, member, now);
            self.lineage.begin((service.clone(), member.clone()), issued);
            Ok((credential_of(book, service, member, issued), is_new))
        })
    }

    /// The next credential of a member.
    ///
    /// # Errors
    /// What it has was revoked since it was let in, or another one of that member was renewed beside it.
    pub(crate) fn renew(&self, credential: &Credential) -> Result<Secret, Refusal> {
        // The time first: a revocation is either seen in the book, or comes later and is of the next one too.
        let now = unix_ms();
        let book = self.book();
        if is_revoked(&book, credential) {
            return Err(ended());
        }
        let (service, member) = (&credential.service, &credential.member);
        let next = self.lineage.next(credential, issued_at(&book, service, member, now));
        let issued = next.map_err(|Reused| reused(service, member))?;
        Ok(credential_of(&book, service, member, issued))
    }

    /// Because of which service deploys of a service wait for a second person: of itself, or of one that it is a flavor of.
    pub(crate) fn protected_by(&self, service: &ServiceName) -> Option<ServiceName> {
        let book = self.book();
        let is_protected =
            |name: &ServiceName| book.protection.get(name).is_some_and(|protected| protected.on);
        iter::once(service.clone()).chain(service.bases()).find(is_protected)
    }

    /// Lets deploys of a service wait for a second person, or no more. Blocks; it is durable on return.
    ///
    /// # Errors
    /// The disk or the store fails.
    pub(crate) fn protect(&self, service: &ServiceName, protected: bool) -> Result<(), Refusal> {
        self.ledger.change(|book| {
            let known = book.protection.get(service);
            // Later than what was said before, also by a server whose clock is ahead.
            let at = known.map_or_else(unix_ms, |known| unix_ms().max(known.at.saturating_add(1)));
            if known.is_some_and(|known| known.on) != protected {
                book.protection.insert(service.clone(), Protected { at, on: protected });
            }
            Ok(())
        })
    }

    /// The deploys that wait for a second person.
    pub(crate) fn pending(&self) -> Vec<(PendingId, Pending)> {
        let now = unix_ms();
        let pending = self.book().pending.clone();
        pending.into_iter().filter(|(_, pending)| now < pending.ends).collect()
    }

    /// Lets a deploy wait for a second person, and says as which, and whether it did not already. Blocks; it is durable on return.
    ///
    /// # Errors
    /// Too many wait, or the disk fails.
    pub(crate) fn hold(&self, id: PendingId, pending: &Pending) -> Result<Waits, Refusal> {
        self.ledger.change(|book| {
            // Asked again, it is the one that waits already: with the same key, or with another one for the same.
            if book.pending.contains_key(&id) {
                return Ok(Waits { id, is_new: false });
            }
            if let Some((id, _)) = book.pending.iter().find(|(_, known)| known.is_same(pending)) {
                return Ok(Waits { id: *id, is_new: false });
            }
            if book.pending.len() >= PENDING_MAX {
                let text = format!("{PENDING_MAX} deploys wait already: see `baton pending`");
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "too-many", text));
            }
            let by_them = book.pending.values().filter(|known| known.asked_by == pending.asked_by).count();
            if by_them >= PENDING_OF_ONE_MAX {
                let text = format!("{by_them} deploys that you asked for wait already: see `baton pending`");
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "too-many", text));
            }
            if book.settled.contains_key(&id) {
                let text = "this was asked for before, and waits no more: ask with another idempotency key";
                return Err(Refusal::new(StatusCode::CONFLICT, "conflict", text));
            }
            book.pending.insert(id, pending.clone());
            Ok(Waits { id, is_new: true })
        })
    }

    /// Lets a deploy begin that waits, as far as this list is asked: nobody rejects it any more. Whoever asked first is who has
    /// let it begin; when it was decided is of this call alone. Blocks; it is durable on return.
    ///
    /// # Errors
    /// It does not wait any more, or the disk or the store fails.
    pub(crate) fn approve(&self, id: PendingId, by: &str) -> Result<Pending, Refusal> {
        self.ledger.change(|book| {
            let pending = book.pending.get_mut(&id).ok_or_else(|| waits_no_more(id))?;
            pending.approved_by.get_or_insert_with(|| by.to_owned());
            pending.decide(unix_ms());
            Ok(pending.clone())
        })
    }

    /// Lets a deploy wait on that was let begin and was refused, as if nobody had; where somebody else has let it begin since,
    /// whose `decided` is another one, that stays. Blocks; it is durable on return.
    ///
    /// # Errors
    /// The disk or the store fails.
    pub(crate) fn take_back(&self, id: PendingId, decided: u64) -> Result<(), Refusal> {
        self.ledger.change(|book| {
            if let Some(pending) = book.pending.get_mut(&id).filter(|pending| pending.decided == decided) {
                pending.approved_by = None;
                pending.decide(unix_ms());
            }
            Ok(())
        })
    }

    /// Lets a deploy wait no more that was let begin. Blocks; it is durable on return.
    ///
    /// # Errors
    /// The disk or the store fails.
    pub(crate) fn settle(&self, id: PendingId) -> Result<(), Refusal> {
        self.ledger.change(|book| {
            book.settle(id);
            Ok(())
        })
    }

    /// Lets a deploy wait no more that nobody has let begin. Blocks; it is durable on return.
    ///
    /// # Errors
    /// Somebody has, or it does not wait any more, or the disk or the store fails.
    pub(crate) fn reject(&self, id: PendingId) -> Result<Pending, Refusal> {
        self.ledger.change(|book| {
            let approved = book.pending.get(&id).and_then(|pending| pending.approved_by.as_ref());
            if let Some(by) = approved {
                let text =
                    format!("{by} has let {id} begin: look at it with `baton status`, and halt it there");
                return Err(Refusal::new(StatusCode::CONFLICT, "conflict", text));
            }
            book.settle(id).ok_or_else(|| waits_no_more(id))
        })
    }

    /// A new credential of a member. Who gives it out changes the book, or holds it, so that no revocation is overtaken.
    #[cfg(test)]
    pub(crate) fn credential(&self, service: &ServiceName, member: &MemberId) -> Secret {
        credential_of(&self.book(), service, member, unix_ms())
    }

    fn book(&self) -> Arc<Book> {
        self.ledger.book()
    }
}

fn is_revoked(book: &Book, credential: &Credential) -> bool {
    let whose = (credential.service.clone(), credential.member.clone());
    book.revoked.get(&whose).is_some_and(|before| credential.issued < *before)
}

/// When a credential counts as given that a member gets now: after a revocation, whatever the clock of who has revoked it says.
fn issued_at(book: &Book, service: &ServiceName, member: &MemberId, now: u64) -> u64 {
    book.revoked.get(&(service.clone(), member.clone())).map_or(now, |before| now.max(*before))
}

/// A credential of a member.
fn credential_of(book: &Book, service: &ServiceName, member: &MemberId, issued: u64) -> Secret {
    book.key.seal(&Credential { service: service.clone(), member: member.clone(), issued })
}

/// Somebody else has what this member has.
fn reused(service: &ServiceName, member: &MemberId) -> Refusal {
    let text = format!(
        "another credential of member {member} of {service} was renewed beside this one, so two processes have it: take both back \
         with `baton token revoke --service {service} --member {member}`, then let the right one join with a new token"
    );
    Refusal::new(StatusCode::FORBIDDEN, "credential-reused", text)
}

fn waits_no_more(id: PendingId) -> Refusal {
    Refusal::not_found(format!("nothing waits as {id}: see `baton pending`"))
}

/// The authority of all servers that share a list, which has one from then on.
fn shared_authority(ledger: &Ledger, data_dir: &Path) -> Result<Authority, AccessError> {
    let known = ledger.book().authority.clone();
    let authority = match known {
        Some(authority) => authority,
        None => {
            let made = Authority::make()?;
            ledger.change(|book| {
                let known = book.authority.get_or_insert_with(|| made.clone());
                Ok::<_, LedgerError>(known.clone())
            })?
        }
    };
    if authority.is_new_in(data_dir) {
        eprintln!(
            "baton server: the servers have the authority {}, which is another one than this server had: give a new token or \
             ca.pem to whoever believes that one",
            authority.fingerprint()
        );
    }
    authority.publish(data_dir)?;
    Ok(authority)
}

/// Without this token nobody makes tokens any more.
fn last_admin(id: TokenId) -> Refusal {
    let text = format!(
        "{id} is the last token with which tokens can be made: make another admin token first, with \
         `baton token create NAME --role admin`, and revoke this one with that"
    );
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "last-admin", text)
}

/// The first list of tokens, with one in it, which is also in a file that its owner alone may read.
fn begin(data_dir: &Path, authority: Option<&Authority>, is_shared: bool) -> Result<Book, AccessError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(AccessError::Randomness)?;
    let now = unix_ms();
    let mut book = Book::new(now, CredentialKey::new(key));
    if let Some(first) = FirstToken::draw(authority.map(Authority::fingerprint), now)? {
        // First, so that there never is a list without anybody who may change it.
        first.write(data_dir)?;
        book.tokens.insert(first.token.hash, Held { token: Arc::new(first.token), joined: None });
    }
    book.authority = authority.filter(|_| is_shared).cloned();
    Ok(book)
}

/// The token of an admin that a server makes by itself.
struct FirstToken {
    token: Token,
    shown: Shown,
}

impl FirstToken {
    /// Draws one, by which its holder knows this authority. None where the holder has no name, which cannot be.
    fn draw(authority: Option<Fingerprint>, now: u64) -> Result<Option<Self>, AccessError> {
        let mut random = [0; TOKEN_BYTES];
        getrandom::fill(&mut random).map_err(AccessError::Randomness)?;
        let Ok(holder) = FIRST_HOLDER.parse::<HolderName>() else { return Ok(None) };
        let token = Token {
            hash: TokenHash::of(&random),
            holder,
            role: Role::Admin,
            scope: Scope::Every,
            created: now,
            expires: None,
            member: None,
            reusable: false,
        };
        Ok(Some(Self { token, shown: Shown::token(&random, authority) }))
    }

    /// Writes it where its owner alone may read it.
    fn write(&self, data_dir: &Path) -> Result<(), DiskError> {
        let text = format!("{}\n", self.shown.to_secret().reveal());
        replace_private(&first_token(data_dir), text.as_bytes())
    }
}

/// Where the first token is.
pub(crate) fn first_token(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.token")
}

#[cfg(test)]
mod tests;
