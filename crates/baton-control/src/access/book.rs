//! What is kept of tokens and members, and its file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use baton_core::access::{Credential, CredentialKey, Token};
use baton_core::ids::{MemberId, PendingId, ServiceName, TokenHash};
use baton_release::disk::{DiskError, failed, replace_private};
use baton_wire::access::{BadBook, PendingView, StoredBook, StoredJoin, StoredRevocation, StoredToken};

use baton_wire::api::Propose;

use super::AccessError;
use crate::api::Refusal;
use crate::chain::chain;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Book {
    /// The tokens, by what they are known by.
    pub tokens: BTreeMap<TokenHash, Held>,
    /// The members whose credentials from before a time are worth nothing.
    pub revoked: BTreeMap<(ServiceName, MemberId), u64>,
    /// The services whose deploys wait for a second person.
    pub protected: BTreeSet<ServiceName>,
    /// The deploys that wait.
    pub pending: BTreeMap<PendingId, Pending>,
}

/// A deploy that waits for a second person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Of which service.
    pub service: ServiceName,
    /// Whose token has asked for it.
    pub asked_by: String,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Until when it waits.
    pub ends: u64,
    /// What was asked for.
    pub asked: Propose,
}

/// A token, and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    /// The token.
    pub token: Arc<Token>,
    /// The member that it has made.
    pub joined: Option<StoredJoin>,
}

/// Why the file is not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The disk fails.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It cannot be made text.
    #[error("the list of tokens cannot be made text")]
    Text(#[from] serde_json::Error),
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        Self::unavailable(chain(&error))
    }
}

impl Pending {
    /// For people, and for the file.
    pub(crate) fn view(&self, id: PendingId) -> PendingView {
        let Self { service, asked_by, at, ends, asked } = self.clone();
        let (id, service) = (id.to_string(), service.to_string());
        PendingView { id, service, asked_by, at_ms: at, ends_ms: ends, asked }
    }
}

impl Book {
    /// Forgets what has ended by itself, so that the file does not grow for ever.
    pub(super) fn forget_ended(&mut self, now: u64) {
        self.tokens.retain(|_, held| held.token.is_valid(now));
        self.pending.retain(|_, pending| now < pending.ends);
        // No credential from before then is worth anything by now.
        let longest = Credential::TTL_MS + Credential::RENEWABLE_MS;
        self.revoked.retain(|_, before| before.saturating_add(longest) > now);
    }
}

/// Reads a file; none where there is none.
pub(super) fn read(path: &Path) -> Result<Option<(Book, CredentialKey)>, AccessError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error).into()),
    };
    let parsed = StoredBook::parse(&text).and_then(|stored| known(&stored));
    parsed.map(Some).map_err(|source| AccessError::Book { path: path.to_owned(), source })
}

fn known(stored: &StoredBook) -> Result<(Book, CredentialKey), BadBook> {
    // The same digits as those of a hash.
    let key = CredentialKey::new(*stored.key.parse::<TokenHash>()?.as_bytes());
    let mut book = Book::default();
    for held in &stored.tokens {
        let token = Arc::new(held.token()?);
        book.tokens.insert(token.hash, Held { token, joined: held.joined.clone() });
    }
    for revoked in &stored.revoked {
        let (whose, before) = revoked.read()?;
        book.revoked.insert(whose, before);
    }
    book.protected = stored.protected.iter().map(|service| service.parse()).collect::<Result<_, _>>()?;
    for PendingView { id, service, asked_by, at_ms, ends_ms, asked } in stored.pending.clone() {
        let pending = Pending { service: service.parse()?, asked_by, at: at_ms, ends: ends_ms, asked };
        book.pending.insert(id.parse()?, pending);
    }
    Ok((book, key))
}

/// Writes the file. It is durable on return.
pub(super) fn write(path: &Path, book: &Book, key: &CredentialKey) -> Result<(), WriteError> {
    let mut stored = StoredBook::new(TokenHash::from_bytes(*key.reveal()).to_string());
    stored.tokens =
        book.tokens.values().map(|held| StoredToken::of(&held.token, held.joined.clone())).collect();
    let revoked = |((service, member), before_ms): (&(ServiceName, MemberId), &u64)| StoredRevocation {
        service: service.to_string(),
        member: member.to_string(),
        before_ms: *before_ms,
    };
    stored.revoked = book.revoked.iter().map(revoked).collect();
    stored.protected = book.protected.iter().map(ServiceName::to_string).collect();
    stored.pending = book.pending.iter().map(|(id, pending)| pending.view(*id)).collect();
    Ok(replace_private(path, stored.to_text()?.as_bytes())?)
}
