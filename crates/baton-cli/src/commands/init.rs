//! `baton init`: runs the program, and writes a `baton.toml` of what it saw.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use baton_core::doctor::{Found, Start, findings, propose};
use baton_core::settings;

use super::doctor::directory;
use crate::args::Init;
use crate::doctor::{Bare, Examined, Order, Subject, catch_interrupts, examine, run_bare};
use crate::environments::environments;
use crate::escape::escape;
use crate::failure::Failure;
use crate::local::beside;
use crate::project::FILE;
use crate::proposed::{Proposed, proposed};
use crate::render;
use crate::render::doctor::Diagnosis;
use crate::ui::Ui;

/// The port that programs which want to be told one are told first, as everywhere in the guides.
const PORT: u16 = 8080;

/// Looks at the program of a directory, and writes its settings.
///
/// # Errors
/// There are settings already, no program is found, or it does not work.
pub fn run(args: &Init, ui: &Ui) -> Result<(), Failure> {
    let dir = directory(&args.dir)?;
    let file = dir.join(FILE);
    if file.exists() && !args.force && !args.print {
        return Err(Failure::Usage(format!(
            "there is a {FILE} in {} already: try it with `baton doctor`, or say --print to see what would be \
             written, or --force to replace it",
            dir.display()
        )));
    }
    let command = if args.command.is_empty() { proposed(&dir)? } else { Proposed::typed(&args.command) };
    catch_interrupts()?;
    let boot = beside("baton-boot")?;
    ui.remark(&format!("runs {} to see what it does", shown(&command.words)));
    let order = Order {
        command: &command.words,
        directory: &dir,
        port: command.wants_port().then(free_port).flatten(),
        wait: Duration::from_millis(args.wait.0),
    };
    let bare = run_bare(&order)?;
    let found = found(&dir, command, &bare, ui)?;
    let (draft, examined) = try_out(&boot, &dir, &found)?;
    if let Start::Failed { .. } = examined.seen.start {
        let found = findings(&draft.run, &examined.seen);
        let diagnosis = Diagnosis::new(&draft, &examined, &found);
        ui.result(&diagnosis, |diagnosis| render::doctor::diagnosis(diagnosis, ui))?;
        return Err(Failure::NotWritten);
    }
    let text = propose(&found, Some(&examined.seen)).text;
    if args.print {
        return ui.result(&Written { written: None, text: &text }, |written| written.text.to_owned());
    }
    write(&file, &text, args.force)?;
    let name = file.display().to_string();
    ui.result(&Written { written: Some(&name), text: &text }, |_| {
        format!("{text}\nwritten to {}; next: baton doctor\n", escape(&name))
    })
}

/// What was written, for programs.
#[derive(serde::Serialize)]
struct Written<'a> {
    /// The file; none where it was only shown.
    written: Option<&'a str>,
    /// Its text.
    text: &'a str,
}

fn shown(words: &[String]) -> String {
    words.iter().map(|word| escape(word)).collect::<Vec<_>>().join(" ")
}

/// A port for a program that must be told one; what the environment says comes before that.
fn free_port() -> Option<u16> {
    if std::env::var_os("PORT").is_some() {
        return None;
    }
    let usual = TcpListener::bind(("127.0.0.1", PORT)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)));
    usual.and_then(|listener| listener.local_addr()).ok().map(|address| address.port())
}

fn found(dir: &Path, command: Proposed, bare: &Bare, ui: &Ui) -> Result<Found, Failure> {
    if let Some(ended) = &bare.ended {
        bare.last_lines.iter().for_each(|line| ui.remark(&format!("  | {}", escape(line))));
        let daemon = if bare.left_behind.is_empty() {
            String::new()
        } else {
            format!(
                " and left {} behind: run it in the foreground, not as a daemon",
                bare.left_behind.join(", ")
            )
        };
        return Err(Failure::NotRunning(format!("{}: {ended}{daemon}", command.words.join(" "))));
    }
    Ok(Found {
        service: dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        source: command.source,
        command: command.words,
        processes: bare.processes.clone(),
        listening: bare.listening.clone(),
        after: bare.after,
        notifies: bare.notifies,
        environments: environments(dir),
    })
}

/// Runs the program under the bootloader with a first draft of the settings.
fn try_out(boot: &Path, dir: &Path, found: &Found) -> Result<(settings::Settings, Examined), Failure> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join(FILE);
    let text = propose(found, None).text;
    fs::write(&file, &text)?;
    let draft = settings::parse("the draft of baton.toml", &text).map_err(Failure::Settings)?;
    let subject = Subject {
        boot,
        directory: dir,
        file: &file,
        settings: &draft,
        path: "/",
        slow: None,
        thoroughly: false,
    };
    let examined = examine(&subject)?;
    Ok((draft, examined))
}

fn write(file: &Path, text: &str, replace: bool) -> Result<(), Failure> {
    let written = if replace { File::create(file) } else { File::create_new(file) };
    written
        .and_then(|mut written| written.write_all(text.as_bytes()))
        .map_err(|source| Failure::Write { path: file.to_owned(), source })
}
