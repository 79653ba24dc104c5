//! Tokens, and what the audit log says.

use baton_wire::access::{GuardView, PendingView, TokenView};
use baton_wire::api::{Propose, Wanted};

use super::{id, or_dash};
use crate::commands::audit::RecordView;
use crate::escape::escape;
use crate::moment::{ago, stamp};
use crate::table::{fit, table};

/// Who has which tokens.
pub fn tokens(tokens: &[TokenView], now_ms: u64, width: usize) -> String {
    let row = |token: &TokenView| {
        let services =
            token.services.as_ref().map_or_else(|| "all".to_owned(), |services| services.join(","));
        [
            escape(&token.id),
            escape(&token.holder),
            if token.reusable { format!("{}, reusable", escape(&token.role)) } else { escape(&token.role) },
            escape(&services),
            ago(token.created_ms, now_ms),
            token.expires_ms.map_or_else(|| "-".to_owned(), stamp),
            or_dash(token.joined.as_deref().or(token.member.as_deref())),
        ]
    };
    let rows: Vec<_> = tokens.iter().map(row).collect();
    table(["TOKEN", "HOLDER", "ROLE", "SERVICES", "MADE", "ENDS", "MEMBER"], &rows, width)
}

/// A token that is none any more.
pub fn revoked(token: &TokenView) -> String {
    format!("token {} of {} is worth nothing any more\n", escape(&token.id), escape(&token.holder))
}

/// The deploys that wait for a second person.
pub fn pending(pending: &[PendingView], now_ms: u64, width: usize) -> String {
    if pending.is_empty() {
        return "nothing waits for a second person\n".to_owned();
    }
    let row = |pending: &PendingView| {
        let asked = &pending.asked;
        let what = match asked.wanted {
            Wanted::Rollout => "rollout",
            Wanted::Halt => "halt",
            Wanted::Resume => "resume",
            Wanted::Abort => "abort",
            Wanted::Rollback => "rollback",
        };
        [
            escape(&pending.id),
            escape(&pending.service),
            format!("{what}{}{}", risks(asked), overtaken(pending)),
            asked.release.as_deref().map_or_else(|| "-".to_owned(), id),
            escape(&pending.asked_by),
            ago(pending.at_ms, now_ms),
            escape(&asked.reason),
        ]
    };
    let rows: Vec<_> = pending.iter().map(row).collect();
    table(["ID", "SERVICE", "KIND", "RELEASE", "BY", "WHEN", "WHY"], &rows, width)
}

/// That it cannot begin any more, and why.
fn overtaken(pending: &PendingView) -> String {
    let by = pending.overtaken_by.as_ref();
    by.map_or_else(String::new, |by| {
        format!(", overtaken by {} {} of {}", by.kind, by.epoch, escape(&by.actor))
    })
}

/// What whoever lets it begin should know.
fn risks(asked: &Propose) -> String {
    let policy = asked.policy.as_ref();
    let risks = [
        (policy.is_some_and(|policy| policy.all_at_once), ", all at once"),
        (policy.is_some_and(|policy| !policy.auto_rollback), ", stays if it fails"),
        (asked.again, ", taken back before"),
    ];
    risks.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect()
}

/// Guards that are switched off.
pub fn guards(off: &[GuardView], width: usize) -> String {
    if off.is_empty() {
        return "no guard is switched off\n".to_owned();
    }
    let row = |off: &GuardView| {
        [
            escape(&off.guard),
            off.service.as_deref().map_or_else(|| "all".to_owned(), escape),
            escape(&off.text),
        ]
    };
    let rows: Vec<_> = off.iter().map(row).collect();
    table(["GUARD", "SERVICE", "WHAT THAT MEANS"], &rows, width)
}

/// Records of the audit log, one on a line.
pub fn records(records: &[RecordView], width: usize) -> String {
    let line = |record: &RecordView| {
        let RecordView { server, at_ms, who, from, what, outcome, detail } = record;
        let server = server.as_ref().map(|server| format!("{server}  ")).unwrap_or_default();
        let line = format!("{}  {server}{who}  {from}  {what}  {outcome}  {detail}", stamp(*at_ms));
        format!("{}\n", fit(escape(&line).trim_end(), width))
    };
    records.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use baton_wire::api::DeployName;

    use super::*;
    use crate::proposal::proposal;

    #[test]
    fn tokens_are_a_table_without_secrets() {
        let token = TokenView {
            id: "0123456789ab".to_owned(),
            holder: "ci".to_owned(),
            role: "deployer".to_owned(),
            services: Some(vec!["web".to_owned(), "api".to_owned()]),
            created_ms: 0,
            expires_ms: None,
            member: None,
            reusable: false,
            joined: None,
        };
        let join = TokenView {
            role: "join".to_owned(),
            joined: Some("web/web-1".to_owned()),
            services: None,
            ..token.clone()
        };
        let text = tokens(&[token, join], 60_000, 80);
        assert!(text.contains("0123456789ab  ci      deployer  web,api"), "{text}");
        assert!(text.contains("web/web-1"), "{text}");
    }

    #[test]
    fn what_was_overtaken_says_by_what() {
        let mut waits = PendingView {
            id: "0123456789ab".to_owned(),
            service: "web".to_owned(),
            asked_by: "ada".to_owned(),
            at_ms: 0,
            ends_ms: 1,
            approved_by: None,
            decided_ms: None,
            asked: proposal(Wanted::Rollout, String::new()).unwrap(),
            overtaken_by: None,
        };
        let text = pending(std::slice::from_ref(&waits), 0, 120);
        assert!(text.contains("rollout ") && !text.contains("overtaken"), "{text}");
        waits.overtaken_by = Some(DeployName {
            id: "1a".repeat(16),
            epoch: 20,
            kind: "rollback".to_owned(),
            release: "2b".repeat(32),
            actor: "bob\x1b".to_owned(),
        });
        let text = pending(&[waits], 0, 120);
        assert!(text.contains("rollout, overtaken by rollback 20 of bob\\x1b"), "{text}");
    }

    #[test]
    fn p44_a_record_is_one_line() {
        let record = RecordView {
            server: None,
            at_ms: 0,
            who: "ada/0123456789ab".to_owned(),
            from: "127.0.0.1".to_owned(),
            what: "POST /v1/x\x1b[2J".to_owned(),
            outcome: "403 not-allowed".to_owned(),
            detail: String::new(),
        };
        let text = records(&[record], 200);
        assert!(text.lines().count() == 1 && text.contains("\\x1b[2J") && text.contains("403"), "{text}");
    }
}
