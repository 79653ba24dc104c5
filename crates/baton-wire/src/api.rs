//! The JSON of the HTTP API under `/v1`: what operators' tools send and get.
//!
//! Ids are lowercase hexadecimal texts, times are milliseconds since 1970, shares are parts per million,
//! durations are milliseconds. Fields are only ever added; whoever reads passes over what it does not know.
//!
//! | method and path | body | answer |
//! | --- | --- | --- |
//! | `GET /v1/services` | | `[`[`ServiceStatus`]`]` |
//! | `GET /v1/services/{service}?after=VERSION&wait_ms=N` | | [`ServiceStatus`], at once or when it is newer than `after` |
//! | `GET /v1/services/{service}/members` | | `[`[`MemberStatus`]`]` |
//! | `GET /v1/services/{service}/deploys` | | `[`[`DeployView`]`]`, newest first |
//! | `POST /v1/services/{service}/deploys` | [`Propose`] | `201` [`DeployView`], or `200` [`Preview`] with `dry_run` |
//! | `POST /v1/services/{service}/lock` | [`Locking`] | [`LockView`] |
//! | `POST /v1/services/{service}/unlock` | [`Locking`] | the [`LockView`] that there was |
//! | `GET /v1/services/{service}/tags` | | `[`[`TagView`]`]`, by name |
//! | `PUT /v1/services/{service}/tags/{tag}` | [`Tagging`] | [`TagView`] |
//! | `DELETE /v1/services/{service}/tags/{tag}` | | the [`TagView`] that there was |
//! | `GET /v1/releases` | | `[`[`ReleaseView`]`]`, newest first |
//! | `POST /v1/services/{service}/members/forget` | [`Forget`] | [`Forgotten`] |
//! | `POST /v1/secrets/versions` | [`References`] | [`Versions`] |
//! | `POST /v1/releases/prune` | [`Prune`] | [`Pruned`] |
//! | `POST /v1/releases/verify` | [`Verify`] | [`Verified`]: a part of the store, and where to go on |
//! | `POST /v1/releases/repair` | [`Repair`] | [`Repaired`]: some of the releases, and where to go on |
//! | `GET /v1/events?after=N&service=S&wait_ms=N` | | `[`[`EventView`]`]`, oldest first, at once or when there are any |
//!
//! A refusal has the status of its kind and a [`Refused`] body.

mod metric;
mod policy;

use serde::{Deserialize, Serialize};

pub use metric::MetricView;
pub use policy::{BadPolicy, LimitsView, PhaseView, PolicyView};

/// References to secrets that control resolves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct References {
    /// As `baton.toml` has them.
    pub references: Vec<String>,
    /// For which service. Needed where control has a list of which service may have which secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Which versions of them are current. No value is ever told here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// In the order of the references; none where its store keeps no versions.
    pub versions: Vec<Option<String>>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// Bring a release to the fleet. Needs `release`; `policy` is `safe` where absent.
    Rollout,
    /// Stop what is under way.
    Halt,
    /// Go on with what was halted.
    Resume,
    /// Take back the rollout that is under way or halted.
    Abort,
    /// Take back what is in force; to `release` if given.
    Rollback,
}

/// A proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propose {
    /// What is asked for.
    pub wanted: Wanted,
    /// The release: its id, a unique prefix of at least 4 digits of that, or a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// How it is rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyView>,
    /// A release that was rolled back is wanted all the same.
    #[serde(default)]
    pub again: bool,
    /// The deploy that the proposer believes to be in force; absent: whichever is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Who asks.
    #[serde(default)]
    pub actor: String,
    /// Sent again with the same key, the proposal is made once (1 to 128 visible characters).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Only tell what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// The signed text of exactly this deploy: what its preview says, with `parent` as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warrant: Option<String>,
    /// It is not signed, on purpose, although the deploy in force is.
    #[serde(default)]
    pub unsigned: bool,
}

/// Lock a service, or unlock it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locking {
    /// Why. To lock it, required.
    #[serde(default)]
    pub reason: String,
    /// Who asks.
    #[serde(default)]
    pub actor: String,
}

/// Why a service takes no new release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    /// Why.
    pub reason: String,
    /// Who locked it.
    pub actor: String,
    /// Since when.
    pub since_ms: u64,
    /// Which service it is of, where that is not the one that was asked about but one that this is a flavor of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// A service that is not locked any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlocked {
    /// The lock that there was.
    #[serde(flatten)]
    pub was: LockView,
    /// The lock of a service that this one is a flavor of, which holds for this one as well; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub still: Option<LockView>,
}

/// Give a release a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tagging {
    /// Which, as in [`Propose`].
    pub release: String,
    /// Who asks.
    #[serde(default)]
    pub actor: String,
}

/// The release that has a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagView {
    /// The tag.
    pub tag: String,
    /// The release.
    pub release: String,
    /// Who gave it the tag.
    pub actor: String,
    /// When.
    pub since_ms: u64,
}

/// Members that will not come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forget {
    /// Which.
    #[serde(default)]
    pub members: Vec<String>,
    /// Instead of names: all that cannot be heard.
    #[serde(default)]
    pub silent: bool,
}

/// Members that do not count any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Which.
    pub members: Vec<String>,
}

/// What a proposal would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The release.
    pub release: String,
    /// How many members are live.
    pub members: u32,
    /// For each phase, how many may try at once and how long each bakes.
    pub phases: Vec<PreviewPhase>,
    /// Members in the order in which they would get a slot, if nothing fails.
    pub order: Vec<String>,
    /// How long what runs now takes to start, as members have told: the middle one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_ms: Option<u64>,
    /// How many connections each member waits for beside its bake, at most for
    /// [`TRAFFIC_PATIENCE`](baton_core::bake::TRAFFIC_PATIENCE) longer.
    #[serde(default)]
    pub bake_connections: u32,
    /// How long it would take if nothing failed and the release started as fast; without fetching, draining, and waiting for
    /// connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
    /// The deploy as it would be, for who signs it. Its id is another one each time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<DeployView>,
    /// Whether it would wait for a second person, since the service is protected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protected: bool,
}

/// One phase of a preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviewPhase {
    /// How many members may try at once.
    pub slots: u32,
    /// How long each bakes.
    pub bake_ms: u64,
}

/// A deploy and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployView {
    /// Its id.
    pub id: String,
    /// Whose members it is for.
    pub service: String,
    /// Its number.
    pub epoch: u64,
    /// `rollout`, `halt` or `rollback`.
    pub kind: String,
    /// The deploy that was in force before.
    pub parent: Option<String>,
    /// The deploy that a halt or a rollback is about.
    pub of: Option<String>,
    /// What members shall run.
    pub release: String,
    /// Where a rollback would go.
    pub fallback: Option<String>,
    /// How it is rolled out.
    pub policy: PolicyView,
    /// Why.
    pub reason: String,
    /// Who asked for it.
    pub actor: String,
    /// When it was accepted.
    pub created_ms: u64,
    /// Whether it reached its target.
    pub switched: bool,
    /// How safely it is kept: `durable` (on this server's disk).
    pub accepted: String,
    /// The signed text that it stands on: its own, or, for a halt or a return by control, that of the deploy before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warrant: Option<String>,
    /// In the answer to a proposal and in a status: the deploy that was in force before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<DeployName>,
    /// In a list of deploys: what the release had cost the members when it had switched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub costs: Option<CostsView>,
}

/// Which deploy, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployName {
    /// Its id.
    pub id: String,
    /// Its number.
    pub epoch: u64,
    /// `rollout`, `halt` or `rollback`.
    pub kind: String,
    /// What members shall run.
    pub release: String,
    /// Who asked for it.
    pub actor: String,
}

/// How a service stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub service: String,
    /// Grows with every change: to wait for the next one.
    pub version: u64,
    /// The deploy in force.
    pub deploy: Option<DeployView>,
    /// `idle`, `rolling-out`, `rolling-back`, `halted`, `switched`, `drained`, `incomplete`, `outranked`.
    pub state: String,
    /// Why a person has to decide what follows, since control does nothing more; absent while none has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs_person: Option<String>,
    /// Why nothing is decided about any service: the state store cannot be used. It changes without a new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Why nobody new gets a slot, in a sentence; absent while somebody does.
    pub waits: Option<String>,
    /// The reason's code.
    pub waits_code: Option<String>,
    /// The phase, counted from 1.
    pub phase: u32,
    /// How many phases there are.
    pub phases: u32,
    /// How many members may try at once now.
    pub slots: u32,
    /// How many members there are of each sort.
    pub counts: CountsView,
    /// What is on its way to the disks of all members together, if anything is. It changes without a new version.
    #[serde(default)]
    pub fetching: Option<Fetching>,
    /// What the release costs the members that have tried it.
    #[serde(default)]
    pub costs: CostsView,
    /// What a new member starts.
    pub committed: Option<String>,
    /// Why it takes no new release, if it does not.
    #[serde(default)]
    pub lock: Option<LockView>,
    /// The first member that failed in this deploy, and how.
    pub failure: Option<FailureView>,
    /// Who keeps the deploy from being switched, or drained, once nobody else is to get a slot: the first few.
    #[serde(default)]
    pub laggards: Vec<LaggardView>,
    /// How many there are.
    #[serde(default)]
    pub laggards_count: u32,
}

/// What a release costs the members that have tried it in this deploy; what is not known is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CostsView {
    /// How long after its launch it is healthy, the middle one.
    #[serde(default)]
    pub startup_ms: Option<u64>,
    /// The same of the release before it, on the members that know both.
    #[serde(default)]
    pub startup_before_ms: Option<u64>,
    /// It starts at least 40 % slower on most of them.
    #[serde(default)]
    pub slower: bool,
    /// The most memory until it was proven, the middle one.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// The same of the release before it, on the members that know both.
    #[serde(default)]
    pub memory_before_bytes: Option<u64>,
    /// It uses at least 40 % more on most of them.
    #[serde(default)]
    pub larger: bool,
    /// What all members together have fetched of it, as files have it.
    #[serde(default)]
    pub fetched_bytes: u64,
    /// How long after it was known to be healthy it had the new connections of the release before it, the middle one.
    #[serde(default)]
    pub handover_us: Option<u64>,
}

/// A member that a deploy waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaggardView {
    /// Which.
    pub member: String,
    /// What keeps it: one of the codes of `why_code`, or `drains`.
    pub code: String,
    /// The same in a sentence.
    pub why: String,
}

/// How many members there are of each sort.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CountsView {
    /// Heard of within the lease.
    pub live: u32,
    /// Not heard of, and not given up.
    pub silent: u32,
    /// Run something else and do not have the release yet.
    pub behind: u32,
    /// Have the release on disk.
    pub staged: u32,
    /// Have a slot, or start or probe a candidate.
    pub trying: u32,
    /// Serve the release and bake.
    pub proving: u32,
    /// Were healthy for the whole bake.
    pub proven: u32,
    /// Kept or took back the old release.
    pub refused: u32,
    /// Have no old generation left.
    pub drained: u32,
}

/// How a member failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureView {
    /// Which member; absent where it is the release as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// The cause for machines.
    pub code: String,
    /// The rule by which that has stopped the rollout; absent where it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The cause and the last lines of output for people.
    pub detail: String,
}

/// How a member stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub member: String,
    /// `live`, `silent` or `gone`.
    pub presence: String,
    /// Milliseconds since it was last heard of.
    pub heard_ago_ms: u64,
    /// The release that serves.
    pub running: Option<String>,
    /// The release that it would start by itself.
    pub committed: Option<String>,
    /// The release that stands by.
    pub standby: Option<String>,
    /// Whether what serves is healthy.
    pub healthy: bool,
    /// `behind`, `staged`, `granted`, `trying`, `proving`, `proven` or `refused`.
    pub standing: String,
    /// What is on its way to its disk, if anything is.
    #[serde(default)]
    pub fetching: Option<Fetching>,
    /// Why it has no slot or does not run the release, in a sentence.
    pub why: Option<String>,
    /// The reason's code.
    pub why_code: Option<String>,
    /// How it failed: the cause and the last lines of output.
    pub refusal: Option<String>,
    /// No old generation is left.
    pub drained: bool,
    /// What it can be chosen by.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Where it listens.
    pub listens: Vec<String>,
    /// The bootloader's version.
    pub version: String,
    /// Whether that is newer than control's, which nothing is promised for.
    #[serde(default)]
    pub newer: bool,
}

/// How much of a release has come to a member, of what it did not have on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetching {
    /// Bytes that have come, as files have them: what travels is compressed.
    pub fetched_bytes: u64,
    /// All that is to come.
    pub total_bytes: u64,
}

/// A release in the artefact store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// Its id.
    pub id: String,
    /// The service it was pushed for.
    pub service: String,
    /// How many files it has.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// The git commit it was made from, if it was.
    pub commit: Option<String>,
    /// When it was made.
    pub created_ms: u64,
}

/// Remove releases that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Prune {
    /// Only tell what would go.
    #[serde(default)]
    pub dry_run: bool,
    /// How many releases of each service stay that nobody names; absent: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
    /// What was pushed or deployed within this time stays; absent: a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
}

/// What was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pruned {
    /// Nothing was removed.
    pub dry_run: bool,
    /// All releases, the one that was used last first.
    pub releases: Vec<PrunedRelease>,
    /// The packs that go.
    pub packs: Vec<PrunedPack>,
    /// Length of all packs before, in bytes.
    pub bytes: u64,
    /// How much less they are afterwards.
    pub bytes_freed: u64,
}

/// What becomes of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedRelease {
    /// Its id.
    pub id: String,
    /// The service it was pushed for; absent when it is damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How long ago it was last pushed or deployed.
    pub idle_ms: u64,
    /// Whether it goes.
    pub goes: bool,
    /// Why it goes or stays.
    pub why: String,
}

/// A pack that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedPack {
    /// Its id.
    pub id: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// How much of it is needed, and is written into another one first.
    pub repacked_bytes: u64,
}

/// Check what the artefact store has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verify {
    /// Go on there: the `next` of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What was checked, and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verified {
    /// How many packs were read, and how many releases were looked up, which comes last.
    pub packs: u64,
    /// See `packs`.
    pub releases: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// Length of all packs.
    pub bytes_all: u64,
    /// What is not as it should be.
    pub damaged: Vec<DamagedView>,
    /// Where to go on; absent when everything was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Give the artefact store back what it has lost of releases, from members that are connected to the server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Repair {
    /// Only tell what is lost, and who says that it has it.
    #[serde(default)]
    pub dry_run: bool,
    /// Go on there: the `next` of the last answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What was given back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Repaired {
    /// Nobody was asked for anything.
    pub dry_run: bool,
    /// How many releases were looked up.
    pub releases: u64,
    /// Those that lacked something.
    pub repaired: Vec<RepairedRelease>,
    /// Where to go on; absent when all were looked up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A release that lacked something, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RepairedRelease {
    /// Which.
    pub id: String,
    /// Of which service; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What was wrong with it.
    pub lacked: String,
    /// Whether it is all there now.
    pub is_whole: bool,
    /// There is more to ask for: the next answer has the same release again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub goes_on: bool,
    /// Whether something of its manifest was given back.
    pub manifest: bool,
    /// Chunks of files that were given back, and their bytes.
    pub chunks: u64,
    /// See `chunks`.
    pub bytes: u64,
    /// The members that gave something, each as `SERVICE/MEMBER`; those that say that they have it where nobody was asked.
    pub members: Vec<String>,
    /// The members that were not asked any more, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedLender>,
    /// Why it is not whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A member that was asked for content, and not any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedLender {
    /// `SERVICE/MEMBER`.
    pub member: String,
    /// Why.
    pub why: String,
}

/// Something that is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedView {
    /// `pack` or `release`.
    pub what: String,
    /// Which.
    pub id: String,
    /// What is wrong with it.
    pub why: String,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Its number: greater than that of every event before it.
    pub sequence: u64,
    /// When.
    pub at_ms: u64,
    /// For which service.
    pub service: String,
    /// A stable word: `deploy-accepted`, `granted`, `proven`, `refused`, `switched` and others.
    pub kind: String,
    /// Of which member, if of one.
    pub member: Option<String>,
    /// Of which deploy, if of one.
    pub deploy: Option<String>,
    /// A sentence for people.
    pub text: String,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// A stable word: `conflict`, `not-found`, `invalid`, `not-allowed`, `unavailable` and others.
    pub code: String,
    /// What is wrong and what to do, in a sentence.
    pub message: String,
}
