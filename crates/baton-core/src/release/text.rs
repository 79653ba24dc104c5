//! The manifest as text: what is hashed, stored, sent, and read by people with a text editor.
//!
//! ```text
//! baton-manifest 1
//! service web
//! created 1763000000000
//! builder "ci@build-7"
//! commit 8843d7f92416211de9ebb963ff4ce28125932878 clean
//! run.command "python3" "app.py"
//! …
//! limits 1042 5
//! dir static
//! file 1042 static/app.js
//! chunk 6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85 1042
//! link static/current
//! to app.js
//! exec 0 tool
//! ```
//!
//! There is exactly one text for a manifest: [`Manifest::parse`] accepts what [`Manifest::to_text`] writes and
//! nothing else, so a hash names one release and no two readers can see different ones in the same bytes.

use alloc::string::{String, ToString};
use core::fmt::Write;

use super::external::ExternalLinks;
use super::fault::{Fault, Text, TextError};
use super::lines::{Lines, VERSION, Words, quote};
use super::tree::Tree;
use super::{Chunk, Chunks, Commit, Entry, EntryKind, File, Limits, Manifest, Provenance, run_lines};
use crate::ids::ServiceName;

/// Largest manifest in bytes: holds a large tree ten times over, and can be held in memory by a small member.
pub const MANIFEST_BYTES_MAX: usize = 64 << 20;

impl Manifest {
    /// The manifest's text.
    pub fn to_text(&self) -> String {
        // What an entry takes that has a path and a chunk of usual lengths.
        let mut text = String::with_capacity(160 * self.tree.entries().len());
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> core::fmt::Result {
        let Self { service, provenance, run, tree } = self;
        let Provenance { created, builder, commit } = provenance;
        writeln!(out, "{} {VERSION}\nservice {service}", Text::Manifest.magic())?;
        writeln!(out, "created {created}\nbuilder {}", quote(builder))?;
        if let Some(Commit { hash, dirty }) = commit {
            writeln!(out, "commit {hash} {}", if *dirty { "dirty" } else { "clean" })?;
        }
        for (key, value) in run_lines::write(run) {
            writeln!(out, "{key} {value}")?;
        }
        let Limits { bytes, entries } = tree.limits();
        writeln!(out, "limits {bytes} {entries}")?;
        tree.external().iter().try_for_each(|target| writeln!(out, "external {target}"))?;
        tree.entries().iter().try_for_each(|entry| write_entry(out, entry))
    }

    /// Reads a manifest and checks every rule: what comes back can be laid out and started.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if text.len() > MANIFEST_BYTES_MAX {
            let what = Fault::TooLong { max: MANIFEST_BYTES_MAX };
            return Err(TextError { text: Text::Manifest, line: 1, what });
        }
        let mut lines = Lines::new(Text::Manifest, text)?;
        let service = lines.only("service", "a service's name")?;
        let provenance = read_provenance(&mut lines)?;
        let line = lines.number();
        let run = run_lines::read(&mut lines)?;
        run_lines::check(&run).map_err(|what| TextError { text: Text::Manifest, line, what })?;
        let tree = read_tree(&mut lines)?;
        Ok(Self { service, provenance, run, tree })
    }
}

/// Text by text: there are tens of thousands of entries, and formatting takes several times as long.
fn write_entry(out: &mut String, Entry { path, kind }: &Entry) -> core::fmt::Result {
    let path = path.as_str();
    match kind {
        EntryKind::Dir => out.extend(["dir ", path, "\n"]),
        EntryKind::Link { target } => out.extend(["link ", path, "\nto ", target, "\n"]),
        EntryKind::File(file) => {
            write!(out, "{} {}", if file.executable { "exec" } else { "file" }, file.bytes())?;
            out.extend([" ", path, "\n"]);
            for Chunk { id, bytes } in &file.chunks {
                writeln!(out, "chunk {id} {bytes}")?;
            }
        }
    }
    Ok(())
}

/// The service that a release was made for whose manifest starts like this: with two lines at least.
pub fn service_in(start: &str) -> Result<ServiceName, TextError> {
    Lines::new(Text::Manifest, start)?.only("service", "a service's name")
}

fn read_provenance(lines: &mut Lines<'_>) -> Result<Provenance, TextError> {
    let mut words = lines.expect("created")?;
    let created = words.value("a number")?;
    words.end()?;
    let mut words = lines.expect("builder")?;
    let builder = words.quoted()?;
    words.end()?;
    let commit = match lines.take("commit")? {
        None => None,
        Some(mut words) => {
            let hash = words.word()?;
            let digits = hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if !digits || !matches!(hash.len(), 40 | 64) {
                return Err(words.fault(Fault::NotA { what: "a git commit", text: hash.to_string() }));
            }
            let dirty = words.one_of(&[("clean", false), ("dirty", true)])?;
            words.end()?;
            let hash = hash.to_string();
            Some(Commit { hash, dirty })
        }
    };
    Ok(Provenance { created, builder, commit })
}

fn read_tree(lines: &mut Lines<'_>) -> Result<Tree, TextError> {
    let mut words = lines.expect("limits")?;
    let limits = Limits { bytes: words.value("a number")?, entries: words.value("a number")? };
    words.end()?;
    let external = read_external(lines)?;
    let mut tree = Tree::new(limits, external).map_err(|fault| words.fault(fault.into()))?;
    while !lines.is_empty() {
        let line = lines.number();
        let entry = read_entry(lines)?;
        tree.add(entry).map_err(|fault| TextError { text: Text::Manifest, line, what: fault.into() })?;
    }
    Ok(tree)
}

fn read_external(lines: &mut Lines<'_>) -> Result<ExternalLinks, TextError> {
    let mut links = ExternalLinks::default();
    while let Some(mut words) = lines.take("external")? {
        let target = words.remainder()?;
        let refused = |fault| Fault::External { target: target.to_string(), fault };
        links.add(target).map_err(|fault| words.fault(refused(fault)))?;
    }
    Ok(links)
}

fn read_entry(lines: &mut Lines<'_>) -> Result<Entry, TextError> {
    let mut words = lines.next()?;
    let (path, kind) = match words.word()? {
        "dir" => (words.remainder()?, EntryKind::Dir),
        "link" => {
            let target = lines.expect("to")?.remainder()?.to_string();
            (words.remainder()?, EntryKind::Link { target })
        }
        "file" => read_file(&mut words, lines, false)?,
        "exec" => read_file(&mut words, lines, true)?,
        other => return Err(words.fault(Fault::UnknownKind(other.to_string()))),
    };
    let path = path.parse().map_err(|fault| words.fault(Fault::Path { path: path.to_string(), fault }))?;
    Ok(Entry { path, kind })
}

fn read_file<'a>(
    words: &mut Words<'a>,
    lines: &mut Lines<'a>,
    executable: bool,
) -> Result<(&'a str, EntryKind), TextError> {
    let bytes: u64 = words.number()?;
    let path = words.remainder()?;
    let mut chunks = Chunks::new();
    while let Some(mut words) = lines.take("chunk")? {
        chunks.push(words.chunk()?);
    }
    let file = File { executable, chunks };
    let sum = file.bytes();
    if sum != bytes {
        let path = path.to_string();
        return Err(words.fault(Fault::Size { path, bytes, sum }));
    }
    Ok((path, EntryKind::File(file)))
}
