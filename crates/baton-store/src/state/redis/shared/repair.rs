//! What follows where the store has another state of a service than the one that is known: it has gone on, or lost something.

use baton_core::event::What;
use baton_core::ids::ServiceName;

use super::super::rows::{Glance, Stored};
use super::{Era, Looked, Shared};
use crate::state::{Service, StateError};

impl Shared {
    /// What follows for a service from how it stood in the store at the moment `store_now`, and whether it is listed there.
    pub(super) fn compare(
        &mut self,
        name: &ServiceName,
        glance: &Glance,
        listed: bool,
        store_now: u64,
    ) -> Result<Looked, StateError> {
        match self.stored.get(name) {
            None if glance.version.is_none() => Ok(Looked::Known),
            Some(stored) if stored.is(glance) && listed => Ok(Looked::Known),
            stored => {
                let is_later = |stored: &Stored| stored.is_before(glance) && stored.is_of_era(glance);
                let forward = stored.is_none_or(|stored| is_later(stored) && !self.link.is_other());
                let only = (forward && stored.is_some()).then_some(glance);
                let found = self.read_service(name, only)?;
                if found.as_ref().map(|found| &found.version) != glance.version.as_ref() {
                    // It has gone on since the look, and that may be on this node alone.
                    self.confirm(store_now)?;
                }
                match (found, forward) {
                    (Some(found), true) if self.continues(name, &found) => {
                        self.take_over(name, found);
                        Ok(Looked::Known)
                    }
                    (found, _) => self.repair(name, found, listed),
                }
            }
        }
    }

    /// Whether a log that was found has all that is known.
    fn continues(&self, name: &ServiceName, found: &Stored) -> bool {
        let known = self.stored.get(name).and_then(|stored| stored.service.history().in_force());
        known.is_none_or(|known| found.service.history().find(known.id) == Some(known))
    }

    fn take_over(&mut self, name: &ServiceName, found: Stored) {
        let mut service = self.held.get(name);
        let before = self.stored.get(name).map(|stored| &stored.service);
        service.adopt(found.service.clone(), before, self.now());
        self.held.put(name, service);
        self.stored.insert(name.clone(), found);
    }

    /// The store has less than it had, or something else: what is known is written back, or given up for what others have
    /// accepted since. Either way slots may be lost.
    fn repair(
        &mut self,
        name: &ServiceName,
        found: Option<Stored>,
        listed: bool,
    ) -> Result<Looked, StateError> {
        self.doubt();
        let here = self.held.get(name);
        let before = self.stored.get(name).map(|stored| &stored.service);
        let next = match &found {
            Some(found) => here.reconciled(&found.service, before, self.now()),
            None => here.clone(),
        };
        match found {
            Some(found) if listed && found.service.has_all_of(&next) => {
                self.tell_lost(name, &here, &next);
                self.stored.insert(name.clone(), found);
                self.held.put(name, next);
                Ok(Looked::Known)
            }
            found => {
                if self.write_back(name, found.as_ref(), &next)? {
                    self.tell_lost(name, &here, &next);
                    self.tell_restored(name, found.as_ref().map(|found| &found.service), &next);
                    self.held.put(name, next);
                }
                Ok(Looked::Repaired)
            }
        }
    }

    /// Writes all of a service in the place of what was found, unless another server has done so meanwhile: the next look shows
    /// that.
    fn write_back(
        &mut self,
        name: &ServiceName,
        found: Option<&Stored>,
        next: &Service,
    ) -> Result<bool, StateError> {
        self.watch([name])?;
        let again = self.read_service(name, None)?;
        let found = found.map(|found| &found.version);
        let again = again.as_ref().map(|again| &again.version);
        if again != found {
            return Ok(false);
        }
        let known = self.stored.get(name).map(|stored| &stored.version);
        let count = [again, known].into_iter().flatten().map(|version| version.count).max().unwrap_or(0);
        self.put(name, None, next, count, Era::New)
    }

    /// Tells what of it the store had not any more, and that it is there again.
    fn tell_restored(&mut self, name: &ServiceName, found: Option<&Service>, next: &Service) {
        if let Some(found) = found {
            self.tell_lost(name, found, next);
        }
        let deploys = |service: &Service| service.history().past().len();
        let missing = deploys(next).saturating_sub(found.map_or(0, deploys));
        let text = format!(
            "the state store had lost something of {name} ({missing} deploys): it was written back; \
             no slots are given for a lease"
        );
        self.tell(name, What::StoreRestored, text);
    }

    /// Tells which deploys are in one log and not in the one that goes on.
    fn tell_lost(&mut self, name: &ServiceName, lost: &Service, goes_on: &Service) {
        for past in lost.history().past() {
            let deploy = &past.deploy;
            if goes_on.history().find(deploy.id) != Some(deploy) {
                let (actor, release, epoch) = (&deploy.actor, deploy.release.short(), deploy.epoch);
                let text = format!(
                    "the state store has lost the deploy of release {release} by {actor} (epoch {epoch}): another one has \
                     taken its place, deploy again if it is still wanted"
                );
                self.tell(name, What::DeployLost, text);
            }
        }
    }
}
