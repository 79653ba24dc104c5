//! Who may do what here: the tokens that were given out, the credentials of members, and the file in which that is kept.
//!
//! Everything that is asked passes one place, [`doorman::check`], which looks at one table, that of the [`doors`].

mod book;
mod caller;
pub(crate) mod doorman;
pub(crate) mod doors;
mod limits;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use baton_core::access::{Credential, CredentialKey, Fingerprint, Role, Shown, Standing, TOKEN_BYTES, Token};
use baton_core::ids::{HolderName, MemberId, PendingId, ServiceName, TokenHash, TokenId};
use baton_core::run::secrets::Secret;
use baton_release::disk::{DiskError, replace_private};
use baton_wire::access::{BadBook, StoredJoin};

use self::book::Book;
pub(crate) use self::book::{Held, Pending};
pub(crate) use caller::Caller;

use crate::api::Refusal;
use crate::clock::unix_ms;

/// Whose the first token is.
const FIRST_HOLDER: &str = "first-admin";
/// Most tokens at once: far more than anybody can keep track of.
const TOKENS_MAX: usize = 10_000;

/// Most deploys that wait for a second person: each is a few kilobytes of a file that is written whole.
const PENDING_MAX: usize = 100;

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
    /// There are no random numbers to be had.
    #[error("the system has no random numbers")]
    Randomness(#[source] getrandom::Error),
}

/// Who may do what.
pub(crate) struct Access {
    path: PathBuf,
    key: CredentialKey,
    fingerprint: Option<Fingerprint>,
    book: RwLock<Arc<Book>>,
    /// Held by who changes the book, from the look at it until it is on disk.
    changing: Mutex<()>,
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
    /// Reads the tokens in a data directory. Where there is no list of them yet, there is one afterwards, and beside it a file
    /// with the first token, that of an admin.
    ///
    /// # Errors
    /// The list cannot be read, or a new one not be written.
    pub(crate) fn open(data_dir: &Path, fingerprint: Option<Fingerprint>) -> Result<Self, AccessError> {
        let path = data_dir.join("access.json");
        let (book, key) = match book::read(&path)? {
            Some(known) => known,
            None => begin(data_dir, &path, fingerprint)?,
        };
        let book = RwLock::new(Arc::new(book));
        Ok(Self { path, key, fingerprint, book, changing: Mutex::default() })
    }

    /// The fingerprint of the authority that vouches for this server, where that is its own.
    pub(crate) const fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
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
            self.key.open(shown).map_err(|_| unknown("what was sent is no token of this server"))?;
        match credential.standing(now) {
            Standing::Valid if !self.is_revoked(&credential) => Ok(Caller::Member(credential)),
            Standing::Renewable if !self.is_revoked(&credential) => Ok(Caller::Late(credential)),
            Standing::Valid | Standing::Renewable | Standing::Ended => Err(ended()),
        }
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

    fn is_revoked(&self, credential: &Credential) -> bool {
        let whose = (credential.service.clone(), credential.member.clone());
        self.book().revoked.get(&whose).is_some_and(|before| credential.issued < *before)
    }

    /// All tokens that have not ended, with the members that they have made.
    pub(crate) fn tokens(&self) -> Vec<Held> {
        let now = unix_ms();
        self.book().tokens.values().filter(|held| held.token.is_valid(now)).cloned().collect()
    }

    /// Keeps a token. Blocks; it is durable on return.
    ///
    /// # Errors
    /// Another one has its hash, there are too many, or the disk fails.
    pub(crate) fn make(&self, token: &Token) -> Result<Token, Refusal> {
        self.change(|book| {
            if let Some(known) = book.tokens.get(&token.hash) {
                // Asked again, since the answer was lost: the same token, as it was made then.
                let same = Token { created: token.created, expires: token.expires, ..(*known.token).clone() };
                return match same == *token {
                    true => Ok((*known.token).clone()),
                    false => Err(Refusal::new(
                        StatusCode::UNPROCESSABLE_ENTITY,
                        "key-taken",
                        "there is another token with this hash: draw new random bytes",
                    )),
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

    /// Makes a token worth nothing. Blocks; it is durable on return.
    ///
    /// # Errors
    /// There is none with this id, or the disk fails.
    pub(crate) fn revoke(&self, id: TokenId) -> Result<Held, Refusal> {
        self.change(|book| {
            let hash = book.tokens.keys().find(|hash| hash.id() == id).copied();
            let gone = hash.and_then(|hash| book.tokens.remove(&hash));
            gone.ok_or_else(|| Refusal::not_found(format!("there is no token {id}: see `baton token list`")))
        })
    }

    /// Makes what a member has worth nothing, so that it needs a new token. Blocks; it is durable on return.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn revoke_member(&self, service: &ServiceName, member: &MemberId) -> Result<(), Refusal> {
        self.change(|book| {
            let joined = |held: &Held| {
                held.joined.as_ref().is_some_and(|joined| {
                    joined.service == service.as_str() && joined.member == member.as_str()
                })
            };
            // Who has the key of its join could come back with it.
            book.tokens.retain(|_, held| !joined(held));
            // Anything issued in this millisecond too.
            book.revoked.insert((service.clone(), member.clone()), unix_ms() + 1);
            Ok(())
        })
    }

    /// Makes a member of who has a token for it. Blocks; it is durable on return.
    ///
    /// # Errors
    /// The token is for others, or was used by somebody else, or the disk fails.
    pub(crate) fn join(
        &self,
        token: &Token,
        service: &ServiceName,
        member: &MemberId,
        key: &str,
    ) -> Result<Secret, Refusal> {
        let refused = |text: String| Refusal::new(StatusCode::FORBIDDEN, "not-allowed", text);
        if !token.scope.covers(service) {
            return Err(refused(format!("this token makes no members of service {service}")));
        }
        if token.member.as_ref().is_some_and(|only| only != member) {
            return Err(refused(format!("this token makes another member than {member}")));
        }
        let key = TokenHash::of(key.as_bytes()).to_string();
        let joined = StoredJoin { service: service.to_string(), member: member.to_string(), key };
        self.change(|book| {
            let held = book.tokens.get_mut(&token.hash);
            let held = held.ok_or_else(|| unknown("this token was revoked, or has ended"))?;
            match held.joined.as_ref().filter(|_| !token.reusable) {
                Some(known) if *known != joined => {
                    return Err(Refusal::new(
                        StatusCode::FORBIDDEN,
                        "token-used",
                        "this token was used already, by another process: make a new one with `baton token join`",
                    ));
                }
                Some(_) => {}
                None if token.reusable => {}
                None => held.joined = Some(joined.clone()),
            }
            // Before anybody can revoke it: a later revocation is of this one too.
            Ok(self.credential(service, member))
        })
    }

    /// The next credential of a member. Blocks while somebody else changes the book.
    ///
    /// # Errors
    /// What it has was revoked since it was let in.
    pub(crate) fn renew(&self, credential: &Credential) -> Result<Secret, Refusal> {
        // A revocation is either seen here, or comes later and is of the next one too.
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_revoked(credential) {
            return Err(ended());
        }
        Ok(self.credential(&credential.service, &credential.member))
    }

    /// Whether deploys of a service wait for a second person.
    pub(crate) fn is_protected(&self, service: &ServiceName) -> bool {
        self.book().protected.contains(service)
    }

    /// Lets deploys of a service wait for a second person, or no more. Blocks; it is durable on return.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn protect(&self, service: ServiceName, protected: bool) -> Result<(), Refusal> {
        self.change(|book| {
            if protected {
                book.protected.insert(service);
            } else {
                book.protected.remove(&service);
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

    /// Lets a deploy wait for a second person. Blocks; it is durable on return.
    ///
    /// # Errors
    /// Too many wait, or the disk fails.
    pub(crate) fn hold(&self, id: PendingId, pending: Pending) -> Result<(), Refusal> {
        self.change(|book| {
            // Asked again, it is the one that waits already.
            if book.pending.contains_key(&id) {
                return Ok(());
            }
            if book.pending.len() >= PENDING_MAX {
                let text = format!("{PENDING_MAX} deploys wait already: see `baton pending`");
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "too-many", text));
            }
            book.pending.insert(id, pending);
            Ok(())
        })
    }

    /// Lets a deploy wait no more. Blocks; it is durable on return.
    ///
    /// # Errors
    /// The disk fails.
    pub(crate) fn settle(&self, id: PendingId) -> Result<(), Refusal> {
        self.change(|book| {
            book.pending.remove(&id);
            Ok(())
        })
    }

    /// A new credential of a member. Who gives it out holds `changing`, so that no revocation is overtaken.
    pub(crate) fn credential(&self, service: &ServiceName, member: &MemberId) -> Secret {
        let (service, member) = (service.clone(), member.clone());
        self.key.seal(&Credential { service, member, issued: unix_ms() })
    }

    fn book(&self) -> Arc<Book> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the book: on disk first, then for all who look.
    fn change<T>(&self, change: impl FnOnce(&mut Book) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.book();
        let mut book = (*before).clone();
        // First, so that what has ended takes nobody's room.
        book.forget_ended(unix_ms());
        let done = change(&mut book)?;
        if book != *before {
            book::write(&self.path, &book, &self.key)?;
            *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
        }
        Ok(done)
    }
}

/// The first list of tokens, with one in it, which is also in a file that its owner alone may read.
fn begin(
    data_dir: &Path,
    path: &Path,
    fingerprint: Option<Fingerprint>,
) -> Result<(Book, CredentialKey), AccessError> {
    let (mut key, mut random) = ([0; 32], [0; TOKEN_BYTES]);
    getrandom::fill(&mut key).and_then(|()| getrandom::fill(&mut random)).map_err(AccessError::Randomness)?;
    let shown = Shown::token(&random, fingerprint);
    // First, so that there never is a list without anybody who may change it.
    let text = format!("{}\n", shown.to_secret().reveal());
    replace_private(&first_token(data_dir), text.as_bytes())?;
    let mut book = Book::default();
    if let Ok(holder) = FIRST_HOLDER.parse::<HolderName>() {
        let token = Token {
            hash: TokenHash::of(&random),
            holder,
            role: Role::Admin,
            scope: baton_core::access::Scope::Every,
            created: unix_ms(),
            expires: None,
            member: None,
            reusable: false,
        };
        book.tokens.insert(token.hash, Held { token: Arc::new(token), joined: None });
    }
    let key = CredentialKey::new(key);
    book::write(path, &book, &key).map_err(|error| match error {
        book::WriteError::Disk(error) => AccessError::Disk(error),
        book::WriteError::Text(source) => {
            AccessError::Book { path: path.to_owned(), source: BadBook::Json(source) }
        }
    })?;
    Ok((book, key))
}

/// Where the first token is.
pub(crate) fn first_token(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.token")
}

#[cfg(test)]
mod tests;
