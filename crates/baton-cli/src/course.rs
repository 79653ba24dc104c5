//! What has become of a deploy, as far as the status of its service tells.

use baton_wire::api::{DeployView, ServiceStatus};

/// Follows one deploy through what comes into force after it.
#[derive(Debug)]
pub struct Course {
    deploy: String,
    epoch: u64,
    /// The rollback that took it back, once one was seen.
    rollback: Option<String>,
}

/// How far a deploy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is under way.
    Rolling,
    /// It has reached its target.
    Switched,
    /// The same, and no old generation is left.
    Drained,
    /// Only members are left that refuse the release or cannot get it.
    Incomplete,
    /// It was stopped.
    Halted,
    /// It is being taken back.
    RollingBack,
    /// It was taken back.
    RolledBack,
    /// It was being taken back, and that stopped too.
    RollbackStuck,
    /// Somebody deployed something else.
    Superseded,
}

impl Course {
    /// Follows this deploy, which was just accepted.
    pub fn of(deploy: &DeployView) -> Self {
        Self { deploy: deploy.id.clone(), epoch: deploy.epoch, rollback: None }
    }

    /// Follows this deploy, after which there may have been others: `deploys` are those of its service, newest first.
    pub fn among(deploy: &DeployView, deploys: &[DeployView]) -> Self {
        let rollback = rollback_of(deploy, deploys).map(|rollback| rollback.id.clone());
        Self { rollback, ..Self::of(deploy) }
    }

    /// How far it is, by this status. Statuses may be missing in between, or come twice.
    pub fn see(&mut self, status: &ServiceStatus) -> Stage {
        let Some(in_force) = &status.deploy else {
            return Stage::Rolling;
        };
        let ended = matches!(status.state.as_str(), "switched" | "drained");
        let incomplete = status.state == "incomplete";
        if in_force.id == self.deploy {
            return match (ended, incomplete) {
                (true, _) if status.state == "drained" => Stage::Drained,
                (true, _) => Stage::Switched,
                (false, true) => Stage::Incomplete,
                (false, false) => Stage::Rolling,
            };
        }
        let of = |id: &Option<String>| in_force.of.is_some() && in_force.of == *id;
        let is_rollback = in_force.kind == "rollback";
        if of(&self.rollback) && in_force.kind == "halt" {
            Stage::RollbackStuck
        } else if is_rollback
            && (of(&Some(self.deploy.clone())) || self.rollback.as_ref() == Some(&in_force.id))
        {
            self.rollback = Some(in_force.id.clone());
            match (ended, incomplete) {
                (true, _) => Stage::RolledBack,
                (false, true) => Stage::RollbackStuck,
                (false, false) => Stage::RollingBack,
            }
        } else if of(&Some(self.deploy.clone())) {
            Stage::Halted
        } else if in_force.epoch < self.epoch {
            // An answer from before it was accepted.
            Stage::Rolling
        } else {
            Stage::Superseded
        }
    }
}

/// What became of a deploy after which somebody has deployed something else.
pub fn stage_before(deploy: &DeployView, deploys: &[DeployView]) -> Stage {
    let switched = deploys.iter().any(|past| past.id == deploy.id && past.switched);
    match rollback_of(deploy, deploys) {
        Some(_) => Stage::RolledBack,
        None if switched => Stage::Switched,
        None => Stage::Superseded,
    }
}

/// The rollback that took a deploy back.
fn rollback_of<'a>(deploy: &DeployView, deploys: &'a [DeployView]) -> Option<&'a DeployView> {
    deploys.iter().find(|past| past.kind == "rollback" && past.of.as_ref() == Some(&deploy.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    /// A status with this deploy in force: id, kind, what it is of, epoch.
    fn status(id: &str, kind: &str, of: Option<&str>, epoch: u64, state: &str) -> ServiceStatus {
        let mut status = sample::status(state);
        let mut deploy = sample::deploy();
        deploy.id = id.to_owned();
        deploy.kind = kind.to_owned();
        deploy.of = of.map(str::to_owned);
        deploy.epoch = epoch;
        status.deploy = Some(deploy);
        status
    }

    #[test]
    fn a_deploy_ends_as_the_status_says() {
        let mut mine = sample::deploy();
        mine.id = "b".to_owned();
        mine.epoch = 5;
        for (id, kind, of, epoch, state, stage) in [
            ("b", "rollout", None, 5, "rolling-out", Stage::Rolling),
            ("b", "rollout", None, 5, "idle", Stage::Rolling),
            ("b", "rollout", None, 5, "switched", Stage::Switched),
            ("b", "rollout", None, 5, "drained", Stage::Drained),
            ("b", "rollout", None, 5, "incomplete", Stage::Incomplete),
            ("c", "halt", Some("b"), 6, "halted", Stage::Halted),
            ("c", "rollback", Some("b"), 6, "rolling-back", Stage::RollingBack),
            ("c", "rollback", Some("b"), 6, "switched", Stage::RolledBack),
            ("c", "rollback", Some("b"), 6, "incomplete", Stage::RollbackStuck),
            ("c", "rollout", None, 6, "rolling-out", Stage::Superseded),
            ("c", "halt", Some("x"), 6, "halted", Stage::Superseded),
            ("a", "rollout", None, 4, "switched", Stage::Rolling),
        ] {
            assert_eq!(
                Course::of(&mine).see(&status(id, kind, of, epoch, state)),
                stage,
                "{id} {kind} {state}"
            );
        }
    }

    #[test]
    fn a_rollback_that_halts_is_stuck() {
        let mut mine = sample::deploy();
        mine.id = "b".to_owned();
        let mut course = Course::of(&mine);
        assert_eq!(course.see(&status("c", "rollback", Some("b"), 6, "rolling-back")), Stage::RollingBack);
        assert_eq!(course.see(&status("d", "halt", Some("c"), 7, "halted")), Stage::RollbackStuck);
    }

    #[test]
    fn a_lost_store_is_no_end() {
        let mut empty = sample::status("idle");
        empty.deploy = None;
        assert_eq!(Course::of(&sample::deploy()).see(&empty), Stage::Rolling);
    }

    #[test]
    fn what_became_of_a_deploy_is_known_from_those_after_it() {
        let past = |id: &str, kind: &str, of: Option<&str>, switched: bool| DeployView {
            id: id.to_owned(),
            kind: kind.to_owned(),
            of: of.map(str::to_owned),
            switched,
            ..sample::deploy()
        };
        for (switched, next, stage) in [
            (false, past("b", "rollout", None, true), Stage::Superseded),
            (true, past("b", "rollout", None, true), Stage::Switched),
            (true, past("b", "rollback", Some("x"), true), Stage::Switched),
            (false, past("b", "rollback", Some("a"), true), Stage::RolledBack),
            (true, past("b", "rollback", Some("a"), true), Stage::RolledBack),
            (false, past("b", "halt", Some("a"), true), Stage::Superseded),
        ] {
            let mine = past("a", "rollout", None, switched);
            let deploys = [past("c", "rollout", None, false), next, mine.clone()];
            assert_eq!(stage_before(&mine, &deploys), stage, "{deploys:?}");
        }
    }

    #[test]
    fn a_rollback_that_nobody_saw_and_that_halts_is_stuck_all_the_same() {
        let mine = DeployView { id: "a".to_owned(), ..sample::deploy() };
        let rollback = DeployView {
            id: "b".to_owned(),
            kind: "rollback".to_owned(),
            of: Some("a".to_owned()),
            ..sample::deploy()
        };
        let mut course = Course::among(&mine, &[rollback, mine.clone()]);
        assert_eq!(course.see(&status("c", "halt", Some("b"), 7, "halted")), Stage::RollbackStuck);
    }
}
