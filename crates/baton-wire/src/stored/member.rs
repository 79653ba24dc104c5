//! Members and their slots.

use baton_core::fleet::Grant;
use baton_core::ids::Epoch;
use baton_core::units::Millis;

use super::field::{invalid, present};
use super::v1::member;
use super::{BadRecord, Encoded, MemberRecord, Slot, v1};

impl Encoded for MemberRecord {
    type Message = v1::Member;

    fn to_message(&self) -> v1::Member {
        let slot = self.slot.map(|slot| match slot {
            Slot::Given { epoch, grant } => member::Slot::Grant(grant_message(epoch, grant)),
            Slot::Leftover => member::Slot::Leftover(member::Leftover {}),
        });
        v1::Member { slot, gone: self.gone.then_some(true) }
    }

    fn from_message(message: v1::Member) -> Result<Self, BadRecord> {
        let slot = match message.slot {
            Some(member::Slot::Grant(grant)) => {
                Some(Slot::Given { epoch: grant.epoch.map(Epoch), grant: read_grant(&grant)? })
            }
            Some(member::Slot::Leftover(member::Leftover {})) => Some(Slot::Leftover),
            None => None,
        };
        Ok(Self { slot, gone: message.gone.unwrap_or(false) })
    }
}

fn grant_message(epoch: Option<Epoch>, grant: Grant) -> v1::Grant {
    let Grant { phase, bake, proven } = grant;
    // A policy with more phases than fit would not fit into memory.
    let phase = u32::try_from(phase).unwrap_or(u32::MAX);
    v1::Grant {
        phase: Some(phase),
        bake_ms: Some(bake.0),
        proven: Some(proven),
        epoch: epoch.map(|epoch| epoch.0),
    }
}

fn read_grant(message: &v1::Grant) -> Result<Grant, BadRecord> {
    let phase = present(message.phase, "grant.phase")?;
    Ok(Grant {
        phase: usize::try_from(phase).map_err(|error| invalid("grant.phase", error))?,
        bake: Millis(present(message.bake_ms, "grant.bake_ms")?),
        proven: present(message.proven, "grant.proven")?,
    })
}
