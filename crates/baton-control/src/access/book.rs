//! What is kept of tokens and members, and how that is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use baton_core::access::{Credential, CredentialKey, Right, Scope, Token};
use baton_core::ids::{MemberId, PendingId, ServiceName, TokenHash, TokenId};
use baton_core::run::secrets::Secret;
use baton_wire::access::{
    BadBook, PendingView, StoredAuthority, StoredBook, StoredEnd, StoredGone, StoredJoin, StoredProtection,
    StoredRevocation, StoredToken,
};
use baton_wire::api::Propose;

use crate::tls::Authority;

/// For how long it is told what a token was that was revoked: whoever has not heard the answer asks again sooner.
const TOLD_MS: u64 = 24 * 60 * 60 * 1000;
/// Most tokens of which it is remembered that they were revoked: some megabytes. Those that end first go first.
const GONE_MAX: usize = 50_000;
/// Most members of whom it is remembered that they were revoked after all that they had has ended: a megabyte. Those that were
/// revoked first go first.
const SHUT_OUT_MAX: usize = 10_000;

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Book {
    /// When it was begun, in milliseconds since 1970. Of two that were begun apart, the older one's key counts.
    pub made: u64,
    /// What control knows its members' credentials by.
    pub key: CredentialKey,
    /// The tokens, by what they are known by.
    pub tokens: BTreeMap<TokenHash, Held>,
    /// The tokens that were revoked.
    pub gone: BTreeMap<TokenHash, Gone>,
    /// The members whose credentials from before a time are worth nothing.
    pub revoked: BTreeMap<(ServiceName, MemberId), u64>,
    /// Whether deploys of a service wait for a second person.
    pub protection: BTreeMap<ServiceName, Protected>,
    /// The deploys that wait.
    pub pending: BTreeMap<PendingId, Pending>,
    /// Those that wait no more, each until when it would have waited.
    pub settled: BTreeMap<PendingId, u64>,
    /// The authority that vouches for the servers, where several share the book.
    pub authority: Option<Authority>,
}

/// Whether deploys of a service wait for a second person, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Protected {
    /// In milliseconds since 1970.
    pub at: u64,
    /// They do.
    pub on: bool,
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
    /// Who has let it begin, from when on nobody rejects it.
    pub approved_by: Option<String>,
    /// When somebody has let it begin last, or that was taken back, in milliseconds since 1970; 0 where nobody ever has. No two
    /// of these have the same time, so it tells them apart.
    pub decided: u64,
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

/// A token that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Until when that is remembered, in milliseconds since 1970.
    pub until: u64,
    /// What it was; none once nobody asks any more.
    pub was: Option<Was>,
}

/// What a token was, when it was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Was {
    /// When that was, in milliseconds since 1970.
    pub at: u64,
    /// The token.
    pub held: Held,
}

impl Pending {
    /// Something was decided about it: later than what was before, also where another server's clock is ahead.
    pub(crate) fn decide(&mut self, now: u64) {
        self.decided = now.max(self.decided.saturating_add(1));
    }

    /// Whether somebody asks for what they have asked for before, by whichever key: what would begin is the same, after the same
    /// deploy and for the same reason.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let what = |pending: &Self| Propose { idempotency_key: None, ..pending.asked.clone() };
        (&self.service, &self.asked_by, what(self)) == (&other.service, &other.asked_by, what(other))
    }

    /// For people, and for the file.
    pub(crate) fn view(&self, id: PendingId) -> PendingView {
        let Self { service, asked_by, at, ends, approved_by, decided, asked } = self.clone();
        let (id, service) = (id.to_string(), service.to_string());
        let decided = (decided > 0).then_some(decided);
        PendingView {
            id,
            service,
            asked_by,
            at_ms: at,
            ends_ms: ends,
            approved_by,
            decided_ms: decided,
            asked,
            overtaken_by: None,
        }
    }

    /// Reads what [`Pending::view`] has written.
    fn read(view: PendingView) -> Result<(PendingId, Self), BadBook> {
        let PendingView { id, service, asked_by, approved_by, decided_ms, asked, .. } = view;
        let (at, ends) = (view.at_ms, view.ends_ms);
        let (service, decided) = (service.parse()?, decided_ms.unwrap_or_default());
        Ok((id.parse()?, Self { service, asked_by, at, ends, approved_by, decided, asked }))
    }
}

impl Held {
    fn read(stored: &StoredToken) -> Result<Self, BadBook> {
        Ok(Self { token: Arc::new(stored.token()?), joined: stored.joined.clone() })
    }

    /// For the file.
    pub(super) fn stored(&self) -> StoredToken {
        StoredToken::of(&self.token, self.joined.clone())
    }
}

impl Book {
    /// One in which nothing is written yet.
    pub(super) const fn new(made: u64, key: CredentialKey) -> Self {
        Self {
            made,
            key,
            tokens: BTreeMap::new(),
            gone: BTreeMap::new(),
            revoked: BTreeMap::new(),
            protection: BTreeMap::new(),
            pending: BTreeMap::new(),
            settled: BTreeMap::new(),
            authority: None,
        }
    }

    /// Whether anybody can make tokens at this time.
    pub(super) fn has_admin(&self, now: u64) -> bool {
        self.admins(now).next().is_some()
    }

    /// Whether nobody could make tokens any more without the token that people call so.
    pub(super) fn is_last_admin(&self, id: TokenId, now: u64) -> bool {
        self.has_admin(now) && self.admins(now).all(|token| token.id() == id)
    }

    /// The tokens with which tokens can be made. One that has ended may be here still.
    fn admins(&self, now: u64) -> impl Iterator<Item = &Token> {
        let tokens = self.tokens.values().map(|held| &*held.token);
        tokens.filter(move |token| {
            token.role.may(Right::Administer) && token.scope == Scope::Every && token.is_valid(now)
        })
    }

    /// Takes a token out, and remembers that.
    pub(super) fn end_token(&mut self, hash: TokenHash, now: u64) -> Option<Held> {
        let held = self.tokens.remove(&hash)?;
        // One without an end comes back with any old list. One that would have ended is asked for again, and made again.
        let until = held.token.expires.map_or(u64::MAX, |ends| ends.max(now.saturating_add(TOLD_MS)));
        let was = Some(Was { at: now, held: held.clone() });
        self.gone.insert(hash, Gone { until, was });
        Some(held)
    }

    /// Whether there is a token that people call so.
    pub(super) fn has_token(&self, id: TokenId) -> bool {
        self.tokens.keys().any(|hash| hash.id() == id)
    }

    /// Takes out the token that people call so, and remembers that. One that was taken out lately is told again.
    pub(super) fn revoke_token(&mut self, id: TokenId, now: u64) -> Option<Held> {
        if let Some(hash) = self.tokens.keys().find(|hash| hash.id() == id).copied() {
            return self.end_token(hash, now);
        }
        let (_, gone) = self.gone.iter().find(|(hash, _)| hash.id() == id)?;
        gone.was.as_ref().map(|was| was.held.clone())
    }

    /// Takes a deploy that waits out, and remembers that.
    pub(super) fn settle(&mut self, id: PendingId) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.settled.insert(id, pending.ends);
        Some(pending)
    }

    /// Makes worth nothing what a member has.
    pub(super) fn revoke(&mut self, service: ServiceName, member: MemberId, now: u64) {
        // Also what a server issues at the same moment whose clock is ahead.
        let before = now.saturating_add(Credential::SKEW_MS);
        let known = self.revoked.entry((service, member)).or_default();
        *known = before.max(*known);
    }

    /// Whether what a member has was made worth nothing at this time or later.
    pub(super) fn was_revoked_since(&self, service: &ServiceName, member: &MemberId, at: u64) -> bool {
        let before = self.revoked.get(&(service.clone(), member.clone()));
        before.is_some_and(|before| at.saturating_add(Credential::SKEW_MS) <= *before)
    }

    /// Forgets what has ended by itself, so that it does not grow for ever.
    pub(super) fn forget_ended(&mut self, now: u64) {
        self.tokens.retain(|_, held| held.token.is_valid(now));
        self.gone.retain(|_, gone| now < gone.until);
        for gone in self.gone.values_mut() {
            gone.was.take_if(|was| was.at.saturating_add(TOLD_MS) <= now);
        }
        if let Some(excess) = self.gone.len().checked_sub(GONE_MAX) {
            let mut oldest: Vec<_> = self.gone.iter().map(|(hash, gone)| (gone.until, *hash)).collect();
            oldest.sort_unstable();
            for (_, hash) in oldest.into_iter().take(excess) {
                self.gone.remove(&hash);
            }
        }
        self.pending.retain(|_, pending| now < pending.ends);
        self.settled.retain(|_, until| now < *until);
        self.forget_revoked(now);
    }

    /// Forgets that members were revoked of which no credential is worth anything by now. While there is a token that was used
    /// before, an old copy may tell that somebody else has used it: whoever was shut out for that, and has come anew, is not shut
    /// out again.
    fn forget_revoked(&mut self, now: u64) {
        let longest = Credential::TTL_MS + Credential::RENEWABLE_MS;
        let has_ended = |before: u64| before.saturating_add(longest) <= now;
        let joined = self.tokens.values().filter_map(|held| held.joined.as_ref());
        let first = joined.map(|joined| joined.at_ms).min().unwrap_or(u64::MAX);
        self.revoked.retain(|_, before| !has_ended(*before) || first <= *before);
        let mut ended: Vec<_> = self.revoked.iter().filter(|(_, before)| has_ended(**before)).collect();
        if let Some(excess) = ended.len().checked_sub(SHUT_OUT_MAX) {
            ended.sort_unstable_by_key(|(whose, before)| (**before, *whose));
            let oldest: Vec<_> = ended.into_iter().take(excess).map(|(whose, _)| whose.clone()).collect();
            for whose in oldest {
                self.revoked.remove(&whose);
            }
        }
    }

    /// Reads what [`Book::to_text`] has written.
    ///
    /// # Errors
    /// It is anything else.
    pub(super) fn parse(text: &str) -> Result<Self, BadBook> {
        let stored = StoredBook::parse(text)?;
        // The same digits as those of a hash.
        let key = CredentialKey::new(*stored.key.parse::<TokenHash>()?.as_bytes());
        let mut book = Self::new(stored.made_ms, key);
        for token in &stored.tokens {
            let held = Held::read(token)?;
            book.tokens.insert(held.token.hash, held);
        }
        for revoked in &stored.revoked {
            let (whose, before) = revoked.read()?;
            book.revoked.insert(whose, before);
        }
        for service in &stored.protected {
            book.protection.insert(service.parse()?, Protected { at: 0, on: true });
        }
        for StoredProtection { service, protected, at_ms } in &stored.protection {
            book.protection.insert(service.parse()?, Protected { at: *at_ms, on: *protected });
        }
        for waits in stored.pending {
            let (id, pending) = Pending::read(waits)?;
            book.pending.insert(id, pending);
        }
        for StoredGone { id, until_ms, at_ms, token } in stored.gone {
            let held = token.as_ref().map(Held::read).transpose()?;
            let was = held.map(|held| Was { at: at_ms, held });
            book.gone.insert(id.parse()?, Gone { until: until_ms, was });
        }
        for StoredEnd { id, until_ms } in &stored.settled {
            book.settled.insert(id.parse()?, *until_ms);
        }
        let authority = |StoredAuthority { certificate, key, made_ms }| Authority {
            certificate,
            key: Secret::new(key),
            made: made_ms,
        };
        book.authority = stored.authority.map(authority);
        Ok(book)
    }

    /// All of it, as text.
    ///
    /// # Errors
    /// None that is known: it is written to memory.
    pub(super) fn to_text(&self) -> Result<String, serde_json::Error> {
        let mut stored = StoredBook::new(self.made, TokenHash::from_bytes(*self.key.reveal()).to_string());
        stored.tokens = self.tokens.values().map(Held::stored).collect();
        let revoked = |((service, member), before_ms): (&(ServiceName, MemberId), &u64)| StoredRevocation {
            service: service.to_string(),
            member: member.to_string(),
            before_ms: *before_ms,
        };
        stored.revoked = self.revoked.iter().map(revoked).collect();
        let protection = |(service, protected): (&ServiceName, &Protected)| StoredProtection {
            service: service.to_string(),
            protected: protected.on,
            at_ms: protected.at,
        };
        stored.protection = self.protection.iter().map(protection).collect();
        stored.pending = self.pending.iter().map(|(id, pending)| pending.view(*id)).collect();
        let end = |(id, until): (&PendingId, &u64)| StoredEnd { id: id.to_string(), until_ms: *until };
        let gone = |(hash, gone): (&TokenHash, &Gone)| StoredGone {
            id: hash.to_string(),
            until_ms: gone.until,
            at_ms: gone.was.as_ref().map_or(0, |was| was.at),
            token: gone.was.as_ref().map(|was| was.held.stored()),
        };
        stored.gone = self.gone.iter().map(gone).collect();
        stored.settled = self.settled.iter().map(end).collect();
        stored.authority = self.authority.as_ref().map(|authority| StoredAuthority {
            certificate: authority.certificate.clone(),
            key: authority.key.reveal().to_owned(),
            made_ms: authority.made,
        });
        stored.to_text()
    }
}
