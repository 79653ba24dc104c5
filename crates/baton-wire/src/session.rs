//! The session between a member and control, in the words of the core.
//!
//! What arrives is checked here, once: an id of the wrong length or a value that is not known is an error that
//! names the field, never a default.

mod carrier;
mod farewell;
mod socket;

use core::fmt;
use std::net::SocketAddr;

use baton_core::bake::Bake;
use baton_core::costs::Costs;
use baton_core::ids::{ChunkId, DeployId, Epoch, MemberId, ReleaseId, ServiceName};
use baton_core::report::{Cause, Fetching, Refusal, Report, Seen, Stamp, Standing};
use baton_core::run::secrets::{Reference, Secret};
use baton_core::target::{InvalidLabel, LABELS_MAX, Label};
use baton_core::units::{Bytes, Micros, Millis};
use prost::Message as _;

use crate::v1;

pub use self::carrier::{Carrier, prepare};
pub use self::farewell::{Farewell, Reason};
pub use self::socket::{CallError, PATH, Socket, SocketError, answer};

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}.{field} is not valid: {why}")]
pub struct InvalidMessage {
    /// The message.
    pub message: &'static str,
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

/// What a member says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromMember {
    /// First and once: who it is.
    Hello(Hello),
    /// How it stands.
    Report(Box<Report>),
    /// Nothing has changed.
    Heartbeat(Stamp),
    /// It ends on purpose.
    Goodbye,
    /// It is about to launch this release, and lacks the secrets of it that control resolves.
    SecretsWanted(ReleaseId),
    /// The answer to what control has asked for, or the next part of it.
    ContentLent(ContentLent),
}

/// What a member gives control of a release on its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentLent {
    /// Which question of the session this answers.
    pub question: u64,
    /// What is said of it now.
    pub part: Vec<u8>,
    /// Whether that is the end of it.
    pub is_last: bool,
}

/// What control asks a member for, whose store has lost something of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentWanted {
    /// Which question of the session this is.
    pub question: u64,
    /// Of which release.
    pub release: ReleaseId,
    /// Which chunks; none where it is asked how the release begins.
    pub chunks: Vec<ChunkId>,
}

/// Who a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Its name.
    pub member: MemberId,
    /// What it runs.
    pub service: ServiceName,
    /// The bootloader's version, for people.
    pub version: String,
    /// Where it listens, for people: `NAME=ADDRESS`.
    pub listens: Vec<String>,
    /// Which of its lives this is: see [`Stamp`].
    pub life: u64,
    /// Where other members of the service may ask it for what it has.
    pub peer: Option<SocketAddr>,
}

/// What control says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToMember {
    /// The deploy in force, and the text of the warrant that it stands on, if it is signed.
    Wish(Wish, Option<String>),
    /// A slot for the deploy in force.
    Grant {
        /// Which deploy.
        deploy: DeployId,
        /// What the release must go through after the switch.
        bake: Bake,
    },
    /// End the trial under way and go back.
    HandBack {
        /// The deploy in force when it was said.
        deploy: DeployId,
    },
    /// The secrets of a release that control resolves.
    SecretsTold {
        /// Of which release.
        release: ReleaseId,
        /// All of them, or which is not to be had and why.
        told: Result<Vec<(Reference, Secret)>, String>,
    },
    /// What the members of this service know each other by.
    PeerKey([u8; 32]),
    /// The store lacks something that the member may have.
    ContentWanted(ContentWanted),
}

pub use baton_core::member::{Purpose, Wish};

impl ToMember {
    /// For the wire.
    pub fn to_wire(&self) -> v1::ToMember {
        use v1::to_member::Message;
        let message = match self {
            Self::Wish(wish, warrant) => Message::Wish(v1::Wish {
                deploy: Some(seen_to_wire(wish.seen)),
                kind: match wish.purpose {
                    Purpose::Rollout => v1::Kind::Rollout,
                    Purpose::Halt => v1::Kind::Halt,
                    Purpose::Rollback => v1::Kind::Rollback,
                }
                .into(),
                release: wish.release.as_bytes().to_vec(),
                base: optional_to_wire(wish.base),
                warrant: warrant.clone().unwrap_or_default(),
            }),
            Self::Grant { deploy, bake } => Message::Grant(v1::Grant {
                deploy: deploy.as_bytes().to_vec(),
                bake_ms: bake.time.0,
                bake_connections: bake.connections,
            }),
            Self::HandBack { deploy } => {
                Message::HandBack(v1::HandBack { deploy: deploy.as_bytes().to_vec() })
            }
            Self::SecretsTold { release, told } => {
                let value = |(reference, value): &(Reference, Secret)| v1::SecretValue {
                    reference: reference.to_string(),
                    value: value.reveal().to_owned(),
                };
                Message::SecretsTold(v1::SecretsTold {
                    release: release.as_bytes().to_vec(),
                    values: told.iter().flatten().map(value).collect(),
                    lacking: told.as_ref().err().cloned().unwrap_or_default(),
                })
            }
            Self::PeerKey(key) => Message::PeerKey(v1::PeerKey { key: key.to_vec() }),
            Self::ContentWanted(ContentWanted { question, release, chunks }) => {
                Message::ContentWanted(v1::ContentWanted {
                    question: *question,
                    release: release.as_bytes().to_vec(),
                    chunks: chunks.iter().map(|id| id.as_bytes().to_vec()).collect(),
                })
            }
        };
        v1::ToMember { message: Some(message) }
    }

    /// From the wire; nothing when the message is of a kind that this version does not know.
    pub fn from_wire(message: v1::ToMember) -> Result<Option<Self>, InvalidMessage> {
        use v1::to_member::Message;
        Ok(Some(match message.message {
            None => return Ok(None),
            Some(Message::Wish(wish)) => {
                // Whether it is a warrant is judged by who obeys it, who says so as well.
                let warrant = Some(wish.warrant.clone()).filter(|text| !text.is_empty());
                Self::Wish(wish_from_wire(&wish)?, warrant)
            }
            Some(Message::Grant(grant)) => {
                let bake = Bake { time: Millis(grant.bake_ms), connections: grant.bake_connections };
                Self::Grant { deploy: deploy_from_wire("Grant", &grant.deploy)?, bake }
            }
            Some(Message::HandBack(back)) => {
                Self::HandBack { deploy: deploy_from_wire("HandBack", &back.deploy)? }
            }
            Some(Message::SecretsTold(told)) => Self::SecretsTold {
                release: release_from_wire("SecretsTold", "release", &told.release)?,
                told: match told.lacking.is_empty() {
                    true => Ok(told.values.into_iter().map(secret_from_wire).collect::<Result<_, _>>()?),
                    false => Err(told.lacking),
                },
            },
            Some(Message::PeerKey(v1::PeerKey { key })) => {
                Self::PeerKey(key.as_slice().try_into().map_err(|_| wrong_length("PeerKey", "key", &key))?)
            }
            Some(Message::ContentWanted(wanted)) => Self::ContentWanted(ContentWanted {
                question: wanted.question,
                release: release_from_wire("ContentWanted", "release", &wanted.release)?,
                chunks: wanted.chunks.iter().map(|id| chunk_from_wire(id)).collect::<Result<_, _>>()?,
            }),
        }))
    }
}

impl FromMember {
    /// For the wire.
    pub fn to_wire(&self) -> v1::FromMember {
        use v1::from_member::Message;
        let message = match self {
            Self::Hello(hello) => Message::Hello(Box::new(v1::Hello {
                member: hello.member.to_string(),
                service: hello.service.to_string(),
                version: hello.version.clone(),
                listens: hello.listens.clone(),
                life: hello.life,
                peer: hello.peer.map(|peer| peer.to_string()).unwrap_or_default(),
            })),
            Self::Report(report) => Message::Report(Box::new(report_to_wire(report))),
            Self::Heartbeat(stamp) => {
                Message::Heartbeat(v1::Heartbeat { stamp: Some(stamp_to_wire(*stamp)) })
            }
            Self::Goodbye => Message::Goodbye(v1::Goodbye {}),
            Self::SecretsWanted(release) => {
                Message::SecretsWanted(v1::SecretsWanted { release: release.as_bytes().to_vec() })
            }
            Self::ContentLent(ContentLent { question, part, is_last }) => {
                Message::ContentLent(v1::ContentLent {
                    question: *question,
                    part: part.clone(),
                    is_last: *is_last,
                })
            }
        };
        v1::FromMember { message: Some(message) }
    }

    /// From the wire; nothing when the message is of a kind that this version does not know. `member` is who
    /// said hello on this session: nobody speaks for another.
    pub fn from_wire(
        message: v1::FromMember,
        member: Option<&MemberId>,
    ) -> Result<Option<Self>, InvalidMessage> {
        use v1::from_member::Message;
        Ok(Some(match (message.message, member) {
            (None, _) => return Ok(None),
            (Some(Message::Hello(hello)), _) => Self::Hello(hello_from_wire(*hello)?),
            (Some(Message::Report(report)), Some(member)) => {
                Self::Report(Box::new(report_from_wire(&report, member)?))
            }
            (Some(Message::Heartbeat(beat)), Some(_)) => {
                Self::Heartbeat(stamp_from_wire("Heartbeat", beat.stamp.as_ref())?)
            }
            (Some(Message::Goodbye(_)), _) => Self::Goodbye,
            (Some(Message::SecretsWanted(wanted)), Some(_)) => {
                Self::SecretsWanted(release_from_wire("SecretsWanted", "release", &wanted.release)?)
            }
            (Some(Message::ContentLent(v1::ContentLent { question, part, is_last })), Some(_)) => {
                Self::ContentLent(ContentLent { question, part, is_last })
            }
            (
                Some(
                    Message::Report(_)
                    | Message::Heartbeat(_)
                    | Message::SecretsWanted(_)
                    | Message::ContentLent(_),
                ),
                None,
            ) => {
                return Err(invalid("FromMember", "message", "a session starts with a hello"));
            }
        }))
    }
}

/// What a member says, as bytes, for a place where several servers share it.
pub fn to_bytes(message: &FromMember) -> Vec<u8> {
    message.to_wire().encode_to_vec()
}

/// What this member says in these bytes; nothing when this version does not know it.
///
/// # Errors
/// When they are anything else.
pub fn from_bytes(bytes: &[u8], member: &MemberId) -> Result<Option<FromMember>, InvalidMessage> {
    let message =
        v1::FromMember::decode(bytes).map_err(|error| invalid("FromMember", "message", error.to_string()))?;
    FromMember::from_wire(message, Some(member))
}

/// What the generated code would show, but for the value.
impl fmt::Debug for v1::SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretValue").field("reference", &self.reference).finish_non_exhaustive()
    }
}

fn secret_from_wire(value: v1::SecretValue) -> Result<(Reference, Secret), InvalidMessage> {
    let reference = value.reference.parse();
    let reference = reference.map_err(|_| invalid("SecretValue", "reference", "no secret is known by it"))?;
    Ok((reference, Secret::new(value.value)))
}

fn wish_from_wire(wish: &v1::Wish) -> Result<Wish, InvalidMessage> {
    Ok(Wish {
        seen: seen_from_wire("Wish", wish.deploy.as_ref())?,
        purpose: match wish.kind() {
            v1::Kind::Rollout => Purpose::Rollout,
            v1::Kind::Halt => Purpose::Halt,
            v1::Kind::Rollback => Purpose::Rollback,
            v1::Kind::Unspecified => return Err(invalid("Wish", "kind", "it is not known")),
        },
        release: release_from_wire("Wish", "release", &wish.release)?,
        base: optional_from_wire("Wish", "base", &wish.base)?,
    })
}

fn hello_from_wire(hello: v1::Hello) -> Result<Hello, InvalidMessage> {
    let named = |field| move |error: baton_core::ids::InvalidId| invalid("Hello", field, error.to_string());
    let peer = Some(hello.peer).filter(|peer| !peer.is_empty());
    let peer = peer.map(|peer| peer.parse().map_err(|_| invalid("Hello", "peer", "it is no address")));
    Ok(Hello {
        member: hello.member.parse().map_err(named("member"))?,
        service: hello.service.parse().map_err(named("service"))?,
        version: hello.version,
        listens: hello.listens,
        life: hello.life,
        peer: peer.transpose()?,
    })
}

fn report_to_wire(report: &Report) -> v1::Report {
    let (standing, refusal) = match &report.standing {
        Standing::Behind => (v1::Standing::Behind, None),
        Standing::Staged => (v1::Standing::Staged, None),
        Standing::Granted => (v1::Standing::Granted, None),
        Standing::Trying => (v1::Standing::Trying, None),
        Standing::Proving => (v1::Standing::Proving, None),
        Standing::Proven => (v1::Standing::Proven, None),
        Standing::Refused(refusal) => (v1::Standing::Refused, Some(refusal)),
    };
    v1::Report {
        stamp: Some(stamp_to_wire(report.stamp)),
        seen: report.seen.map(seen_to_wire),
        committed: report
            .committed
            .map(|(release, epoch)| v1::Committed { release: release.as_bytes().to_vec(), epoch: epoch.0 }),
        running: optional_to_wire(report.running),
        healthy: report.healthy,
        standing: standing.into(),
        refusal: refusal.map(|refusal| v1::Refusal {
            cause: refusal.cause.code().to_owned(),
            detail: refusal.detail.clone(),
        }),
        attempts: report.attempts,
        relapses: report.relapses,
        standby: optional_to_wire(report.standby),
        drained: report.drained,
        bake_connections: report.bake_connections,
        costs: (report.costs != Costs::default()).then(|| costs_to_wire(&report.costs)),
        labels: report.labels.iter().map(ToString::to_string).collect(),
        fetching: report.fetching.map(|Fetching { fetched, total }| v1::Fetching {
            fetched_bytes: fetched.0,
            total_bytes: total.0,
        }),
    }
}

fn report_from_wire(report: &v1::Report, member: &MemberId) -> Result<Report, InvalidMessage> {
    let standing = standing_from_wire(report)?;
    let committed = report.committed.as_ref().map(|committed| {
        Ok((release_from_wire("Committed", "release", &committed.release)?, Epoch(committed.epoch)))
    });
    Ok(Report {
        member: member.clone(),
        stamp: stamp_from_wire("Report", report.stamp.as_ref())?,
        seen: report.seen.as_ref().map(|seen| seen_from_wire("Report", Some(seen))).transpose()?,
        committed: committed.transpose()?,
        running: optional_from_wire("Report", "running", &report.running)?,
        healthy: report.healthy,
        standing,
        fetching: report.fetching.as_ref().map(|fetching| Fetching {
            fetched: Bytes(fetching.fetched_bytes),
            total: Bytes(fetching.total_bytes),
        }),
        attempts: report.attempts,
        relapses: report.relapses,
        standby: optional_from_wire("Report", "standby", &report.standby)?,
        drained: report.drained,
        bake_connections: report.bake_connections,
        costs: report.costs.as_ref().map(costs_from_wire).unwrap_or_default(),
        labels: labels_from_wire(&report.labels)?,
    })
}

fn costs_to_wire(costs: &Costs) -> v1::Costs {
    v1::Costs {
        startup_ms: costs.startup.map(|startup| startup.0),
        startup_before_ms: costs.startup_before.map(|startup| startup.0),
        memory_bytes: costs.memory.map(|memory| memory.0),
        memory_before_bytes: costs.memory_before.map(|memory| memory.0),
        fetched_bytes: costs.fetched.map(|fetched| fetched.0),
        handover_us: costs.handover.map(|handover| handover.0),
    }
}

fn costs_from_wire(costs: &v1::Costs) -> Costs {
    Costs {
        startup: costs.startup_ms.map(Millis),
        startup_before: costs.startup_before_ms.map(Millis),
        memory: costs.memory_bytes.map(Bytes),
        memory_before: costs.memory_before_bytes.map(Bytes),
        fetched: costs.fetched_bytes.map(Bytes),
        handover: costs.handover_us.map(Micros),
    }
}

fn labels_from_wire(labels: &[String]) -> Result<Vec<Label>, InvalidMessage> {
    if labels.len() > LABELS_MAX {
        return Err(invalid("Report", "labels", format!("there are {}", labels.len())));
    }
    let label = |text: &String| {
        text.parse().map_err(|error: InvalidLabel| invalid("Report", "labels", error.to_string()))
    };
    labels.iter().map(label).collect()
}

fn standing_from_wire(report: &v1::Report) -> Result<Standing, InvalidMessage> {
    let refusal = || {
        let refusal = report.refusal.as_ref();
        let refusal = refusal.ok_or_else(|| invalid("Report", "refusal", "it is missing"))?;
        let cause = Cause::from_code(&refusal.cause);
        let cause =
            cause.ok_or_else(|| invalid("Refusal", "cause", format!("{:?} is not known", refusal.cause)))?;
        Ok(Refusal { cause, detail: refusal.detail.clone() })
    };
    Ok(match report.standing() {
        v1::Standing::Unspecified => return Err(invalid("Report", "standing", "it is not known")),
        v1::Standing::Behind => Standing::Behind,
        v1::Standing::Staged => Standing::Staged,
        v1::Standing::Granted => Standing::Granted,
        v1::Standing::Trying => Standing::Trying,
        v1::Standing::Proving => Standing::Proving,
        v1::Standing::Proven => Standing::Proven,
        v1::Standing::Refused => Standing::Refused(refusal()?),
    })
}

fn stamp_to_wire(stamp: Stamp) -> v1::Stamp {
    v1::Stamp { life: stamp.life, sequence: stamp.sequence }
}

fn stamp_from_wire(message: &'static str, stamp: Option<&v1::Stamp>) -> Result<Stamp, InvalidMessage> {
    let stamp = stamp.ok_or_else(|| invalid(message, "stamp", "it is missing"))?;
    Ok(Stamp { life: stamp.life, sequence: stamp.sequence })
}

fn seen_to_wire(seen: Seen) -> v1::Seen {
    v1::Seen { epoch: seen.epoch.0, deploy: seen.deploy.as_bytes().to_vec() }
}

fn seen_from_wire(message: &'static str, seen: Option<&v1::Seen>) -> Result<Seen, InvalidMessage> {
    let seen = seen.ok_or_else(|| invalid(message, "deploy", "it is missing"))?;
    Ok(Seen { epoch: Epoch(seen.epoch), deploy: deploy_from_wire(message, &seen.deploy)? })
}

fn deploy_from_wire(message: &'static str, bytes: &[u8]) -> Result<DeployId, InvalidMessage> {
    let bytes = bytes.try_into().map_err(|_| wrong_length(message, "deploy", bytes))?;
    Ok(DeployId::from_bytes(bytes))
}

fn release_from_wire(
    message: &'static str,
    field: &'static str,
    bytes: &[u8],
) -> Result<ReleaseId, InvalidMessage> {
    let bytes = bytes.try_into().map_err(|_| wrong_length(message, field, bytes))?;
    Ok(ReleaseId::from_bytes(bytes))
}

fn chunk_from_wire(bytes: &[u8]) -> Result<ChunkId, InvalidMessage> {
    let bytes = bytes.try_into().map_err(|_| wrong_length("ContentWanted", "chunks", bytes))?;
    Ok(ChunkId::from_bytes(bytes))
}

fn optional_to_wire(release: Option<ReleaseId>) -> Vec<u8> {
    release.map(|release| release.as_bytes().to_vec()).unwrap_or_default()
}

fn optional_from_wire(
    message: &'static str,
    field: &'static str,
    bytes: &[u8],
) -> Result<Option<ReleaseId>, InvalidMessage> {
    if bytes.is_empty() { Ok(None) } else { release_from_wire(message, field, bytes).map(Some) }
}

fn wrong_length(message: &'static str, field: &'static str, bytes: &[u8]) -> InvalidMessage {
    invalid(message, field, format!("it has {} bytes", bytes.len()))
}

fn invalid(message: &'static str, field: &'static str, why: impl Into<String>) -> InvalidMessage {
    InvalidMessage { message, field, why: why.into() }
}

#[cfg(test)]
mod garbage;

#[cfg(test)]
mod recorded;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn report(standing: Standing) -> Report {
        let release = ReleaseId::from_bytes([7; 32]);
        Report {
            member: "web-1".parse().unwrap(),
            stamp: Stamp { life: 3, sequence: 9 },
            seen: Some(Seen { epoch: Epoch(4), deploy: DeployId::from_bytes([1; 16]) }),
            committed: Some((release, Epoch(3))),
            running: None,
            healthy: true,
            standing,
            fetching: Some(Fetching { fetched: Bytes(1 << 40), total: Bytes(2 << 40) }),
            attempts: 2,
            relapses: 1,
            standby: Some(release),
            drained: true,
            bake_connections: 77,
            costs: Costs {
                startup: Some(Millis(5)),
                startup_before: Some(Millis(4)),
                memory: Some(Bytes(3)),
                memory_before: Some(Bytes(2)),
                fetched: Some(Bytes(1)),
                handover: Some(Micros(6)),
            },
            labels: vec!["canary".parse().unwrap(), "zone=eu-1".parse().unwrap()],
        }
    }

    #[test]
    fn what_a_member_says_arrives_as_it_was_said() {
        let refusal = Refusal { cause: Cause::Exit, detail: "exit 1\nlast line".to_owned() };
        let standings = [
            Standing::Behind,
            Standing::Staged,
            Standing::Granted,
            Standing::Trying,
            Standing::Proving,
            Standing::Proven,
            Standing::Refused(refusal),
        ];
        let hello = Hello {
            member: "web-1".parse().unwrap(),
            service: "web".parse().unwrap(),
            version: "1".to_owned(),
            listens: vec!["http=127.0.0.1:80".to_owned()],
            life: 1,
            peer: Some("10.0.0.7:7401".parse().unwrap()),
        };
        let mut said: Vec<FromMember> =
            standings.into_iter().map(|standing| FromMember::Report(Box::new(report(standing)))).collect();
        said.extend([
            FromMember::Hello(hello),
            FromMember::Heartbeat(Stamp { life: 1, sequence: 2 }),
            FromMember::Goodbye,
            FromMember::SecretsWanted(ReleaseId::from_bytes([7; 32])),
            FromMember::ContentLent(ContentLent { question: 3, part: vec![1, 0, 2], is_last: false }),
            FromMember::ContentLent(ContentLent { question: 3, part: Vec::new(), is_last: true }),
        ]);
        let member = "web-1".parse().unwrap();
        for message in said {
            assert_eq!(from_bytes(&to_bytes(&message), &member), Ok(Some(message.clone())));
            assert_eq!(FromMember::from_wire(message.to_wire(), Some(&member)), Ok(Some(message)));
        }
    }

    #[test]
    fn what_control_says_arrives_as_it_was_said() {
        let deploy = DeployId::from_bytes([5; 16]);
        let wish = |purpose, base| {
            let seen = Seen { epoch: Epoch(9), deploy };
            let warrant = (purpose == Purpose::Halt).then(|| "baton-warrant 1\n".to_owned());
            ToMember::Wish(Wish { seen, purpose, release: ReleaseId::from_bytes([2; 32]), base }, warrant)
        };
        for message in [
            wish(Purpose::Rollout, None),
            wish(Purpose::Halt, Some(ReleaseId::from_bytes([3; 32]))),
            wish(Purpose::Rollback, None),
            ToMember::Grant { deploy, bake: Millis(500).into() },
            ToMember::Grant { deploy, bake: Bake { time: Millis(500), connections: 20 } },
            ToMember::HandBack { deploy },
            ToMember::SecretsTold { release: ReleaseId::from_bytes([2; 32]), told: Err("no".to_owned()) },
            ToMember::SecretsTold { release: ReleaseId::from_bytes([2; 32]), told: Ok(secrets()) },
            ToMember::PeerKey([9; 32]),
            ToMember::ContentWanted(wanted(vec![ChunkId::of(b"one"), ChunkId::of(b"two")])),
            ToMember::ContentWanted(wanted(Vec::new())),
        ] {
            assert_eq!(ToMember::from_wire(message.to_wire()), Ok(Some(message)));
        }
    }

    fn wanted(chunks: Vec<ChunkId>) -> ContentWanted {
        ContentWanted { question: 3, release: ReleaseId::from_bytes([2; 32]), chunks }
    }

    fn secrets() -> Vec<(Reference, Secret)> {
        vec![("aws-ssm:/db".parse().unwrap(), Secret::new("hunter2".to_owned()))]
    }

    #[test]
    fn p43_no_message_shows_the_value_that_it_carries() {
        let message = ToMember::SecretsTold { release: ReleaseId::from_bytes([2; 32]), told: Ok(secrets()) };
        for shown in [format!("{message:?}"), format!("{:#?}", message.to_wire())] {
            assert!(shown.contains("aws-ssm:/db") || shown.contains("Ssm"), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn p36_what_is_wrong_is_refused_with_the_field_and_what_is_new_is_passed_over() {
        let member: MemberId = "web-1".parse().unwrap();
        let said = |change: fn(&mut v1::Report)| {
            let mut wire = report_to_wire(&report(Standing::Staged));
            change(&mut wire);
            report_from_wire(&wire, &member).unwrap_err().to_string()
        };
        assert_eq!(said(|report| report.standing = 99), "Report.standing is not valid: it is not known");
        assert_eq!(said(|report| report.stamp = None), "Report.stamp is not valid: it is missing");
        assert_eq!(said(|report| report.running = vec![1]), "Report.running is not valid: it has 1 bytes");
        assert!(said(|report| report.labels = vec!["a b".into()]).starts_with("Report.labels is not valid"));
        assert_eq!(
            said(|report| report.labels = vec!["a".into(); 33]),
            "Report.labels is not valid: there are 33"
        );
        assert_eq!(
            said(|report| report.standing = v1::Standing::Refused.into()),
            "Report.refusal is not valid: it is missing"
        );
        assert_eq!(ToMember::from_wire(v1::ToMember { message: None }), Ok(None));
        let chunks = vec![vec![1; 32], vec![1; 31]];
        let short = v1::ContentWanted { question: 1, release: vec![1; 32], chunks };
        let short = v1::to_member::Message::ContentWanted(short);
        let refused = ToMember::from_wire(v1::ToMember { message: Some(short) }).unwrap_err().to_string();
        assert_eq!(refused, "ContentWanted.chunks is not valid: it has 31 bytes");
        let lent = ContentLent { question: 1, part: Vec::new(), is_last: true };
        for early in [FromMember::Heartbeat(Stamp::default()), FromMember::ContentLent(lent)] {
            assert!(FromMember::from_wire(early.to_wire(), None).is_err());
        }
    }
}
