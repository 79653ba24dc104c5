//! `baton wait`: for the end of a rollout that was accepted before.

use baton_wire::api::DeployView;

use crate::args::{Await, Wait};
use crate::context::Context;
use crate::failure::Failure;
use crate::follow::follow_on;

/// Who asks for what control does by itself.
const CONTROL: &str = "baton";

/// Follows a deploy to its end, as who has asked for it would.
pub fn run(args: Await, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service)?;
    let deploys = context.client.deploys(&service)?;
    let deploy = match &args.deploy {
        Some(text) => named(&deploys, text)?,
        None => meant(&deploys).ok_or_else(|| {
            Failure::Usage(format!("nothing was ever deployed to {service}: there is nothing to wait for"))
        })?,
    };
    let wait = Wait { until: args.until, detach: false, timeout: args.timeout };
    follow_on(context, &service, deploy, &deploys, &wait)
}

/// The deploy whose id begins so.
fn named<'a>(deploys: &'a [DeployView], text: &str) -> Result<&'a DeployView, Failure> {
    let mut found = deploys.iter().filter(|deploy| deploy.id.starts_with(text));
    match (found.next(), found.next()) {
        (Some(deploy), None) => Ok(deploy),
        (None, _) => Err(Failure::Usage(format!("no deploy begins with {text}: see `baton deploys`"))),
        (Some(_), Some(_)) => {
            Err(Failure::Usage(format!("several deploys begin with {text:?}: write more digits")))
        }
    }
}

/// What somebody waits for who names nothing: what is in force. Where that is a halt, or a rollback that control began by
/// itself, it is what was stopped or taken back: nobody waits for that, and what was asked for has not come about.
fn meant(deploys: &[DeployView]) -> Option<&DeployView> {
    let mut meant = deploys.first()?;
    while meant.kind == "halt" || (meant.kind == "rollback" && meant.actor == CONTROL) {
        let before =
            deploys.iter().find(|deploy| deploy.epoch < meant.epoch && meant.of.as_ref() == Some(&deploy.id));
        let Some(before) = before else { break };
        meant = before;
    }
    Some(meant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    /// A deploy: its id, its kind, which one it is of, and who asked for it.
    type Row = (&'static str, &'static str, Option<&'static str>, &'static str);

    /// These deploys, of which the last is in force, as control has them: newest first.
    fn deploys(rows: &[Row]) -> Vec<DeployView> {
        let rows = (1..).zip(rows);
        let mut deploys: Vec<_> = rows
            .map(|(epoch, (id, kind, of, actor))| DeployView {
                id: (*id).to_owned(),
                kind: (*kind).to_owned(),
                of: of.map(str::to_owned),
                actor: (*actor).to_owned(),
                epoch,
                ..sample::deploy()
            })
            .collect();
        deploys.reverse();
        deploys
    }

    #[test]
    fn who_names_nothing_waits_for_what_somebody_has_asked_for_last() {
        let rollout = ("aa", "rollout", None, "kim");
        for (rows, is_meant) in [
            (&[][..], None),
            (&[("00", "rollout", None, "kim"), rollout], Some("aa")),
            (&[rollout, ("bb", "halt", Some("aa"), "kim")], Some("aa")),
            (&[rollout, ("bb", "rollback", Some("aa"), "kim")], Some("bb")),
            (&[rollout, ("bb", "rollback", Some("aa"), "baton")], Some("aa")),
            (
                &[rollout, ("bb", "rollback", Some("aa"), "kim"), ("cc", "halt", Some("bb"), "baton")],
                Some("bb"),
            ),
            (
                &[rollout, ("bb", "rollback", Some("aa"), "baton"), ("cc", "halt", Some("bb"), "baton")],
                Some("aa"),
            ),
            (&[("bb", "rollback", Some("gone"), "baton")], Some("bb")),
        ] {
            let deploys = deploys(rows);
            assert_eq!(meant(&deploys).map(|deploy| deploy.id.as_str()), is_meant, "{rows:?}");
        }
    }

    #[test]
    fn a_deploy_is_named_by_its_first_digits() {
        let deploys = deploys(&[("aa11", "rollout", None, "kim"), ("aa22", "rollout", None, "kim")]);
        assert_eq!(named(&deploys, "aa2").unwrap().epoch, 2);
        for (text, why) in
            [("aa", "write more digits"), ("", "write more digits"), ("bb", "see `baton deploys`")]
        {
            let refused = named(&deploys, text).unwrap_err().message();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
