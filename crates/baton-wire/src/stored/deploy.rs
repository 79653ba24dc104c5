//! Deploys.

use baton_core::blame::Blame;
use baton_core::costs::{Cost, Learnt, Measured};
use baton_core::deploy::{Deploy, InvalidPolicy, Kind, Phase, PhaseSize, Policy};
use baton_core::ids::{DeployId, Epoch, ReleaseId};
use baton_core::limits::{Connections, Limits};
use baton_core::metric::{Measure, MetricGate};
use baton_core::target::{Amount, Target};
use baton_core::trust::{Signed, Warrant};
use baton_core::units::{Bytes, Micros, Millis, Share};

use super::field::{id, invalid, optional_id, parsed, present, share};
use super::v1::{self, kind, phase};
use super::{BadRecord, Encoded, LoggedDeploy, Milestones};

impl Encoded for LoggedDeploy {
    type Message = v1::LoggedDeploy;

    fn to_message(&self) -> v1::LoggedDeploy {
        let Milestones { switched, incomplete, drained } = self.milestones;
        v1::LoggedDeploy {
            deploy: Some(deploy_message(&self.deploy)),
            members_at_start: Some(self.members_at_start),
            switched,
            incomplete,
            drained,
            learnt: self.learnt.as_ref().map(learnt_message),
        }
    }

    fn from_message(message: v1::LoggedDeploy) -> Result<Self, BadRecord> {
        let v1::LoggedDeploy { deploy, members_at_start, switched, incomplete, drained, learnt } = message;
        Ok(Self {
            deploy: read_deploy(present(deploy, "deploy")?)?,
            members_at_start: present(members_at_start, "members_at_start")?,
            milestones: Milestones { switched, incomplete, drained },
            learnt: learnt.map(read_learnt).transpose()?,
        })
    }
}

fn learnt_message(learnt: &Learnt) -> v1::Learnt {
    let Learnt { startup, memory, fetched, handover } = learnt;
    v1::Learnt {
        startup: startup.map(|startup| measured_message(startup, |time| time.0)),
        memory: memory.map(|memory| measured_message(memory, |bytes| bytes.0)),
        fetched: Some(fetched.0),
        handover: handover.map(|handover| handover.0),
    }
}

fn measured_message<T>(measured: Measured<T>, number: impl Fn(T) -> u64) -> v1::Measured {
    let Measured { median, before, compared, more } = measured;
    v1::Measured {
        median: Some(number(median)),
        before: before.map(number),
        compared: Some(compared),
        more: Some(more),
    }
}

fn read_learnt(message: v1::Learnt) -> Result<Learnt, BadRecord> {
    let v1::Learnt { startup, memory, fetched, handover } = message;
    Ok(Learnt {
        startup: startup.map(|startup| read_measured(startup, Millis)).transpose()?,
        memory: memory.map(|memory| read_measured(memory, Bytes)).transpose()?,
        fetched: Bytes(present(fetched, "learnt.fetched")?),
        handover: handover.map(Micros),
    })
}

fn read_measured<T>(message: v1::Measured, of: impl Fn(u64) -> T) -> Result<Measured<T>, BadRecord> {
    let v1::Measured { median, before, compared, more } = message;
    Ok(Measured {
        median: of(present(median, "learnt.median")?),
        before: before.map(of),
        compared: present(compared, "learnt.compared")?,
        more: present(more, "learnt.more")?,
    })
}

fn deploy_message(deploy: &Deploy) -> v1::Deploy {
    v1::Deploy {
        id: Some(deploy.id.as_bytes().to_vec()),
        service: Some(deploy.service.to_string()),
        epoch: Some(deploy.epoch.0),
        kind: Some(v1::Kind { is: Some(kind_message(deploy.kind)) }),
        parent: deploy.parent.map(|parent| parent.as_bytes().to_vec()),
        release: Some(deploy.release.as_bytes().to_vec()),
        fallback: deploy.fallback.map(|fallback| fallback.as_bytes().to_vec()),
        policy: Some(policy_message(&deploy.policy)),
        reason: Some(deploy.reason.clone()),
        actor: Some(deploy.actor.clone()),
        created: Some(deploy.created),
        warrant: deploy.warrant.as_ref().map(Signed::to_text),
        blame: deploy.blame.as_ref().map(blame_message),
    }
}

fn read_deploy(message: v1::Deploy) -> Result<Deploy, BadRecord> {
    let kind = present(message.kind, "deploy.kind")?.is;
    Ok(Deploy {
        id: DeployId::from_bytes(id(message.id, "deploy.id")?),
        service: parsed(message.service, "deploy.service")?,
        epoch: Epoch(present(message.epoch, "deploy.epoch")?),
        kind: read_kind(present(kind, "deploy.kind.is")?)?,
        parent: optional_id(message.parent, "deploy.parent")?.map(DeployId::from_bytes),
        release: ReleaseId::from_bytes(id(message.release, "deploy.release")?),
        fallback: optional_id(message.fallback, "deploy.fallback")?.map(ReleaseId::from_bytes),
        policy: read_policy(present(message.policy, "deploy.policy")?)?,
        reason: present(message.reason, "deploy.reason")?,
        actor: present(message.actor, "deploy.actor")?,
        created: present(message.created, "deploy.created")?,
        warrant: message.warrant.as_deref().map(read_warrant).transpose()?,
        blame: message.blame.map(read_blame).transpose()?,
    })
}

fn blame_message(blame: &Blame) -> v1::Blame {
    let Blame { member, code, rule, detail } = blame;
    v1::Blame {
        member: member.as_ref().map(ToString::to_string),
        code: Some(code.clone()),
        rule: Some(rule.clone()),
        detail: Some(detail.clone()),
    }
}

fn read_blame(message: v1::Blame) -> Result<Blame, BadRecord> {
    let v1::Blame { member, code, rule, detail } = message;
    Ok(Blame {
        member: member.map(|member| parsed(Some(member), "deploy.blame.member")).transpose()?,
        code: present(code, "deploy.blame.code")?,
        rule: present(rule, "deploy.blame.rule")?,
        detail: present(detail, "deploy.blame.detail")?,
    })
}

fn read_warrant(text: &str) -> Result<Signed<Warrant>, BadRecord> {
    Signed::parse(text).map_err(|error| invalid("deploy.warrant", error))
}

fn kind_message(kind: Kind) -> kind::Is {
    match kind {
        Kind::Rollout => kind::Is::Rollout(kind::Rollout {}),
        Kind::Halt { of, hand_back } => {
            kind::Is::Halt(kind::Halt { of: Some(of.as_bytes().to_vec()), hand_back: Some(hand_back) })
        }
        Kind::Rollback { of } => kind::Is::Rollback(kind::Rollback { of: Some(of.as_bytes().to_vec()) }),
    }
}

fn read_kind(message: kind::Is) -> Result<Kind, BadRecord> {
    Ok(match message {
        kind::Is::Rollout(kind::Rollout {}) => Kind::Rollout,
        kind::Is::Halt(halt) => Kind::Halt {
            of: DeployId::from_bytes(id(halt.of, "deploy.kind.halt.of")?),
            hand_back: present(halt.hand_back, "deploy.kind.halt.hand_back")?,
        },
        kind::Is::Rollback(rollback) => {
            Kind::Rollback { of: DeployId::from_bytes(id(rollback.of, "deploy.kind.rollback.of")?) }
        }
    })
}

fn policy_message(policy: &Policy) -> v1::Policy {
    v1::Policy {
        target_ppm: Some(match policy.target.amount {
            Amount::Share(share) => share.ppm(),
            Amount::Members(_) => Share::ALL.ppm(),
        }),
        target_members: match policy.target.amount {
            Amount::Share(_) => None,
            Amount::Members(members) => Some(members),
        },
        target_label: policy.target.label.as_ref().map(ToString::to_string),
        all_at_once: policy.all_at_once.then_some(true),
        gates: policy.gates.iter().map(|cost| cost.code().to_owned()).collect(),
        limits: (policy.limits != Limits::default()).then(|| limits_message(&policy.limits)),
        max_unhealthy_ppm: Some(policy.max_unhealthy.ppm()),
        phases: policy.phases.iter().map(phase_message).collect(),
        failure_limit_ppm: Some(policy.failure_limit.ppm()),
        auto_rollback: Some(policy.auto_rollback),
        lock_after_rollback: policy.lock_after_rollback.then_some(true),
        metric: policy.metric.as_ref().map(metric_message),
        bake_connections: Some(policy.bake_connections).filter(|connections| *connections > 0),
    }
}

fn read_policy(message: v1::Policy) -> Result<Policy, BadRecord> {
    let policy = Policy {
        target: Target {
            amount: match message.target_members {
                Some(members) => Amount::Members(members),
                None => Amount::Share(share(message.target_ppm, "deploy.policy.target_ppm")?),
            },
            label: message
                .target_label
                .map(|text| parsed(Some(text), "deploy.policy.target_label"))
                .transpose()?,
        },
        max_unhealthy: share(message.max_unhealthy_ppm, "deploy.policy.max_unhealthy_ppm")?,
        phases: message.phases.into_iter().map(read_phase).collect::<Result<_, _>>()?,
        failure_limit: share(message.failure_limit_ppm, "deploy.policy.failure_limit_ppm")?,
        auto_rollback: present(message.auto_rollback, "deploy.policy.auto_rollback")?,
        lock_after_rollback: message.lock_after_rollback.unwrap_or(false),
        all_at_once: message.all_at_once.unwrap_or(false),
        gates: message.gates.iter().map(|code| read_gate(code)).collect::<Result<_, _>>()?,
        limits: message.limits.map_or(Ok(Limits::default()), read_limits)?,
        metric: message.metric.map(read_metric).transpose()?,
        bake_connections: message.bake_connections.unwrap_or(0),
    };
    match policy.check() {
        // More than half at once was allowed without being said on its own when older logs were written.
        Ok(()) | Err(InvalidPolicy::AllAtOnce(_)) => Ok(policy),
        Err(error) => Err(invalid("deploy.policy", error)),
    }
}

fn metric_message(gate: &MetricGate) -> v1::Metric {
    v1::Metric {
        query: Some(gate.query.clone()),
        min_millionths: gate.min.map(Measure::millionths),
        max_millionths: gate.max.map(Measure::millionths),
        interval_ms: Some(gate.interval.0),
        failures: Some(gate.failures),
    }
}

/// What is wrong with it shows when the whole policy is checked.
fn read_metric(message: v1::Metric) -> Result<MetricGate, BadRecord> {
    Ok(MetricGate {
        query: present(message.query, "deploy.policy.metric.query")?,
        min: message.min_millionths.map(Measure::of_millionths),
        max: message.max_millionths.map(Measure::of_millionths),
        interval: Millis(present(message.interval_ms, "deploy.policy.metric.interval_ms")?),
        failures: present(message.failures, "deploy.policy.metric.failures")?,
    })
}

fn read_gate(code: &str) -> Result<Cost, BadRecord> {
    let unknown = || invalid("deploy.policy.gates", format!("{code:?} is not known"));
    Cost::from_code(code).ok_or_else(unknown)
}

fn limits_message(limits: &Limits) -> v1::Limits {
    v1::Limits {
        singleton: limits.singleton.then_some(true),
        never_more_than: limits.never_more_than,
        min_available: limits.min_available,
        connections_budget: limits.connections.map(|connections| connections.budget),
        connections_each: limits.connections.map(|connections| connections.each),
    }
}

fn read_limits(message: v1::Limits) -> Result<Limits, BadRecord> {
    let connections = match (message.connections_budget, message.connections_each) {
        (None, None) => None,
        (budget, each) => Some(Connections {
            budget: present(budget, "deploy.policy.limits.connections_budget")?,
            each: present(each, "deploy.policy.limits.connections_each")?,
        }),
    };
    Ok(Limits {
        singleton: message.singleton.unwrap_or(false),
        never_more_than: message.never_more_than,
        min_available: message.min_available,
        connections,
    })
}

fn phase_message(phase: &Phase) -> v1::Phase {
    let size = match phase.size {
        PhaseSize::One => phase::Size::One(phase::One {}),
        PhaseSize::Share(share) => phase::Size::SharePpm(share.ppm()),
    };
    v1::Phase { size: Some(size), bake_ms: Some(phase.bake.0) }
}

fn read_phase(message: v1::Phase) -> Result<Phase, BadRecord> {
    let size = match present(message.size, "deploy.policy.phases.size")? {
        phase::Size::One(phase::One {}) => PhaseSize::One,
        phase::Size::SharePpm(ppm) => PhaseSize::Share(share(Some(ppm), "deploy.policy.phases.share_ppm")?),
    };
    Ok(Phase { size, bake: Millis(present(message.bake_ms, "deploy.policy.phases.bake_ms")?) })
}
