//! `baton audit`: what was changed, by whom, and whether that is still as it was written.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use baton_core::access::{Chain, Head, Record};
use baton_core::ids::AuditHash;
use serde::Serialize;

use crate::args::{Audit, AuditAction, AuditVerify};
use crate::client::Client;
use crate::context::Context;
use crate::failure::Failure;
use crate::render::access;

/// A record, for programs.
#[derive(Debug, Serialize)]
pub struct RecordView {
    /// In the log of which server, where several were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Who.
    pub who: String,
    /// From which address.
    pub from: String,
    /// The method and the path.
    pub what: String,
    /// The status, and the code of a refusal.
    pub outcome: String,
    /// What there is to say beyond that.
    pub detail: String,
}

impl RecordView {
    fn of(record: Record, server: Option<String>) -> Self {
        let Record { at, who, from, what, outcome, detail } = record;
        Self { server, at_ms: at, who, from, what, outcome, detail }
    }
}

/// A log that is as it was written.
#[derive(Debug, Serialize)]
pub struct Whole {
    /// Of which server, where several were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// How many records it has.
    pub records: u64,
    /// The hash of the last one.
    pub head: String,
}

/// Shows the last records, or checks all.
pub fn run(args: Audit, context: &Context) -> Result<(), Failure> {
    match args.action {
        Some(AuditAction::Verify(args)) => verify(&args, context),
        None => list(args.last, context),
    }
}

/// The last records of all servers that were named, in the order of their times.
fn list(last: u64, context: &Context) -> Result<(), Failure> {
    let mut found = Vec::new();
    for client in &context.servers {
        last_of(client, last, name(client, context).as_ref(), &mut found)?;
    }
    // Of one server they stay as they are in its log, whatever its clock has done.
    if context.servers.len() > 1 {
        found.sort_by_key(|record| record.at_ms);
        found.drain(..found.len().saturating_sub(usize::try_from(last).unwrap_or(usize::MAX)));
    }
    context.ui.result(&found, |found| access::records(found, context.ui.width))
}

/// What a server is called where there are several.
fn name(client: &Client, context: &Context) -> Option<String> {
    (context.servers.len() > 1).then(|| client.base().to_owned())
}

fn last_of(
    client: &Client,
    last: u64,
    server: Option<&String>,
    found: &mut Vec<RecordView>,
) -> Result<(), Failure> {
    // What is asked for from there is a part of the log: that it is whole is not checked here.
    let records = client.audit(u64::MAX)?.records;
    let mut after = records.saturating_sub(last);
    while after < records {
        let page = client.audit(after)?.lines;
        if page.is_empty() {
            break;
        }
        after += page.len() as u64;
        for line in &page {
            found.push(RecordView::of(read(line)?, server.cloned()));
        }
    }
    Ok(())
}

/// One line, wherever in the log it is.
fn read(line: &str) -> Result<Record, Failure> {
    Record::parse(line).ok_or_else(|| Failure::Tampered("a line is no record".to_owned()))
}

/// Each server has a log of its own, and each of them is as it was written.
fn verify(args: &AuditVerify, context: &Context) -> Result<(), Failure> {
    let mut logs = Vec::new();
    // The last hash that somebody has kept is that of one of them.
    let mut found = args.head.is_none();
    let mut check = |server: Option<String>, read: &mut dyn FnMut(&mut Verifier) -> Result<(), Failure>| {
        let mut verifier = Verifier { chain: Chain::default(), wanted: args.head, found: false };
        read(&mut verifier).map_err(|failure| match (failure, &server) {
            (Failure::Tampered(why), Some(server)) => Failure::Tampered(format!("{server}: {why}")),
            (failure, _) => failure,
        })?;
        found |= verifier.found;
        let Head { number, hash } = verifier.chain.head();
        logs.push(Whole { server, records: number, head: hash.to_string() });
        Ok::<_, Failure>(())
    };
    match &args.file {
        Some(path) => check(None, &mut |verifier| verifier.file(path))?,
        None => {
            for client in &context.servers {
                check(name(client, context), &mut |verifier| verifier.server(client))?;
            }
        }
    }
    if !found {
        return Err(Failure::Tampered(
            "no record has the hash of --head: something up to it is gone".to_owned(),
        ));
    }
    match &logs[..] {
        [whole] => context.ui.result(whole, told),
        logs => context.ui.result(&logs, |logs| logs.iter().map(told).collect()),
    }
}

fn told(whole: &Whole) -> String {
    let Whole { server, records, head } = whole;
    let server = server.as_ref().map(|server| format!("{server}: ")).unwrap_or_default();
    format!("{server}{records} records, all as written; the last one is {head}\n")
}

/// Reads a log from its beginning.
struct Verifier {
    chain: Chain,
    wanted: Option<AuditHash>,
    /// The wanted hash was seen.
    found: bool,
}

impl Verifier {
    fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.chain.read(line).map_err(|broken| Failure::Tampered(broken.to_string()))?;
        self.found |= self.wanted == Some(self.chain.head().hash);
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), Failure> {
        let failed = |source| Failure::Read { path: path.to_owned(), source };
        for line in BufReader::new(File::open(path).map_err(failed)?).lines() {
            self.line(&line.map_err(failed)?)?;
        }
        Ok(())
    }

    fn server(&mut self, client: &Client) -> Result<(), Failure> {
        loop {
            let page = client.audit(self.chain.head().number)?;
            page.lines.iter().try_for_each(|line| self.line(line))?;
            let read = self.chain.head();
            if read.number >= page.records || page.lines.is_empty() {
                return match read.number < page.records {
                    true => Err(Failure::Tampered(format!(
                        "the server says that there are {} records, and has {}",
                        page.records, read.number
                    ))),
                    false => Ok(()),
                };
            }
        }
    }
}
