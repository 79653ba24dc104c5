//! `baton audit`: what was changed, by whom, and whether that is still as it was written.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use baton_core::access::{Chain, Head, Record};
use baton_core::ids::AuditHash;
use serde::Serialize;

use crate::args::{Audit, AuditAction, AuditVerify};
use crate::context::Context;
use crate::failure::Failure;
use crate::render::access;

/// A record, for programs.
#[derive(Debug, Serialize)]
pub struct RecordView {
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

impl From<Record> for RecordView {
    fn from(Record { at, who, from, what, outcome, detail }: Record) -> Self {
        Self { at_ms: at, who, from, what, outcome, detail }
    }
}

/// A log that is as it was written.
#[derive(Debug, Serialize)]
pub struct Whole {
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

fn list(last: u64, context: &Context) -> Result<(), Failure> {
    // What is asked for from there is a part of the log: that it is whole is not checked here.
    let records = context.client.audit(u64::MAX)?.records;
    let mut found: Vec<RecordView> = Vec::new();
    let mut after = records.saturating_sub(last);
    while after < records {
        let page = context.client.audit(after)?.lines;
        if page.is_empty() {
            break;
        }
        after += page.len() as u64;
        for line in &page {
            found.push(read(line)?.into());
        }
    }
    context.ui.result(&found, |found| access::records(found, context.ui.width))
}

/// One line, wherever in the log it is.
fn read(line: &str) -> Result<Record, Failure> {
    Record::parse(line).ok_or_else(|| Failure::Tampered("a line is no record".to_owned()))
}

fn verify(args: &AuditVerify, context: &Context) -> Result<(), Failure> {
    let mut verifier = Verifier { chain: Chain::default(), wanted: args.head, found: args.head.is_none() };
    match &args.file {
        Some(path) => verifier.file(path)?,
        None => verifier.server(context)?,
    }
    if !verifier.found {
        return Err(Failure::Tampered(
            "no record has the hash of --head: something up to it is gone".to_owned(),
        ));
    }
    let Head { number, hash } = verifier.chain.head();
    let whole = Whole { records: number, head: hash.to_string() };
    context.ui.result(&whole, |whole| {
        format!("{} records, all as written; the last one is {}\n", whole.records, whole.head)
    })
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

    fn server(&mut self, context: &Context) -> Result<(), Failure> {
        loop {
            let page = context.client.audit(self.chain.head().number)?;
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
