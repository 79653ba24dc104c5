//! Events.

use baton_core::event::{Event, What};
use baton_core::ids::DeployId;

use super::field::{invalid, optional_id, parsed, present};
use super::{BadRecord, Encoded, v1};

impl Encoded for Event {
    type Message = v1::Event;

    fn to_message(&self) -> v1::Event {
        v1::Event {
            at: Some(self.at),
            service: Some(self.service.to_string()),
            deploy: self.deploy.map(|deploy| deploy.as_bytes().to_vec()),
            member: self.member.as_ref().map(ToString::to_string),
            what: Some(self.what.code().to_owned()),
            text: Some(self.text.clone()),
        }
    }

    fn from_message(message: v1::Event) -> Result<Self, BadRecord> {
        let what = present(message.what, "what")?;
        Ok(Self {
            at: present(message.at, "at")?,
            service: parsed(message.service, "service")?,
            deploy: optional_id(message.deploy, "deploy")?.map(DeployId::from_bytes),
            member: message.member.map(|member| parsed(Some(member), "member")).transpose()?,
            what: What::from_code(&what).ok_or_else(|| invalid("what", format!("{what:?} is not known")))?,
            text: present(message.text, "text")?,
        })
    }
}
