//! The command of a directory: from its `Procfile`, its `package.json`, or as its only executable file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use baton_core::doctor::Source;

use crate::failure::Failure;

/// What a shell acts on: a command with one of these needs one.
const SHELL: &[char] =
    &['$', '`', '"', '\'', '\\', '|', '&', ';', '<', '>', '(', ')', '*', '?', '[', ']', '#', '~', '{', '}'];

/// A command, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// Where it was found.
    pub source: Source,
}

impl Proposed {
    /// What was typed.
    pub fn typed(words: &[String]) -> Self {
        Self { words: words.to_vec(), source: Source::Typed }
    }

    /// A line of a shell.
    fn line(line: &str, source: Source) -> Option<Self> {
        let line = line.trim();
        let words: Vec<String> = if line.contains(SHELL) || assigns(line) {
            // The shell becomes the program, so that signals reach it; what is more than one command stays as it is.
            let exec = if line.contains(['|', '&', ';']) || assigns(line) { "" } else { "exec " };
            vec!["sh".to_owned(), "-c".to_owned(), format!("{exec}{line}")]
        } else {
            line.split_ascii_whitespace().map(str::to_owned).collect()
        };
        (!line.is_empty()).then_some(Self { words, source })
    }

    /// Whether it is told its port by a variable.
    pub fn wants_port(&self) -> bool {
        self.words.iter().any(|word| word.contains("$PORT") || word.contains("${PORT"))
    }
}

/// Whether a line begins with a variable for the command: `NODE_ENV=production node server.js`.
fn assigns(line: &str) -> bool {
    line.split_ascii_whitespace().next().is_some_and(|word| word.contains('='))
}

/// The command of a directory.
///
/// # Errors
/// None is found, or what names it cannot be read.
pub fn proposed(dir: &Path) -> Result<Proposed, Failure> {
    let text = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let found = text("Procfile").and_then(|text| procfile(&text));
    let found = found.or_else(|| text("package.json").and_then(|text| package_json(&text)));
    let found = found.or_else(|| executable(dir));
    found.ok_or_else(|| {
        Failure::Usage(format!(
            "there is no Procfile, no package.json with scripts.start and no only executable file in {}: \
             say how the program is started, as in: baton init -- node server.js",
            dir.display()
        ))
    })
}

/// The entry `web` of a `Procfile`, or its only one.
fn procfile(text: &str) -> Option<Proposed> {
    let entries: Vec<(&str, &str)> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split_once(':'))
        .map(|(name, line)| (name.trim(), line))
        .collect();
    let web = entries.iter().find(|(name, _)| *name == "web");
    let (name, line) = web.or(if entries.len() == 1 { entries.first() } else { None })?;
    Proposed::line(line, Source::Procfile((*name).to_owned()))
}

fn package_json(text: &str) -> Option<Proposed> {
    let package: serde_json::Value = serde_json::from_str(text).ok()?;
    Proposed::line(package["scripts"]["start"].as_str()?, Source::PackageJson)
}

/// The only executable file.
fn executable(dir: &Path) -> Option<Proposed> {
    let mut found = fs::read_dir(dir).ok()?.flatten().filter(|entry| {
        let executable = |data: fs::Metadata| data.is_file() && data.permissions().mode() & 0o111 != 0;
        entry.metadata().is_ok_and(executable)
    });
    let only = found.next()?;
    let name = only.file_name().into_string().ok()?;
    found.next().is_none().then(|| Proposed { words: vec![format!("./{name}")], source: Source::Executable })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(proposed: Option<Proposed>) -> Vec<String> {
        proposed.map(|proposed| proposed.words).unwrap_or_default()
    }

    #[test]
    fn a_command_is_found_where_platforms_look_for_it() {
        for (text, expected) in [
            ("web: node server.js\nworker: node worker.js\n", &["node", "server.js"][..]),
            ("# all\nworker: ./work --fast\n", &["./work", "--fast"]),
            ("a: x\nb: y\n", &[]),
            (
                "web: gunicorn --bind 0.0.0.0:$PORT app",
                &["sh", "-c", "exec gunicorn --bind 0.0.0.0:$PORT app"],
            ),
            ("web: ./migrate && ./serve", &["sh", "-c", "./migrate && ./serve"]),
            ("web: A=b ./serve", &["sh", "-c", "A=b ./serve"]),
            ("web:\n", &[]),
            ("", &[]),
        ] {
            assert_eq!(words(procfile(text)), expected, "{text:?}");
        }
        let package = r#"{"scripts":{"start":"node server.js","test":"x"}}"#;
        assert_eq!(words(package_json(package)), ["node", "server.js"]);
        assert_eq!(words(package_json("{}")), [""; 0]);
        assert!(procfile("web: serve --port $PORT").unwrap().wants_port());
    }

    #[test]
    fn an_executable_file_is_meant_when_it_is_the_only_one() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, mode: u32| {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("readme", 0o644);
        assert!(proposed(dir.path()).unwrap_err().message().contains("baton init -- node server.js"));
        write("serve", 0o755);
        assert_eq!(words(executable(dir.path())), ["./serve"]);
        assert_eq!(proposed(dir.path()).unwrap().source, Source::Executable);
        write("other", 0o755);
        assert_eq!(executable(dir.path()), None);
    }
}
