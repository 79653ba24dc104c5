//! Whether a release contains the program that it wants to run.

use alloc::string::{String, ToString};

use super::{EntryKind, Manifest};

/// Why a release cannot run its own program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the release cannot run {program:?}: {why}")]
pub struct ProgramFault {
    /// The program as the settings name it.
    pub program: String,
    /// Why not.
    pub why: &'static str,
}

impl Manifest {
    /// Makes sure that a program named by a relative path with a slash is in the release and can be executed.
    ///
    /// Others are looked up where the release runs. Of a link only that it is there can be said here.
    pub fn check_program(&self) -> Result<(), ProgramFault> {
        let Some(program) = self.run.command.first() else {
            return Ok(());
        };
        if program.starts_with('/') || !program.contains('/') {
            return Ok(());
        }
        let why = match self.tree.get(program.trim_start_matches("./")).map(|entry| &entry.kind) {
            Some(EntryKind::Link { .. }) => return Ok(()),
            Some(EntryKind::File(file)) if file.executable => return Ok(()),
            Some(EntryKind::File(_)) => "it is not executable; run `chmod +x` on it",
            Some(EntryKind::Dir) => "it is a directory",
            None => "it is not in the release; is it excluded by .gitignore or .batonignore?",
        };
        Err(ProgramFault { program: program.to_string(), why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::{Chunks, Entry, File, Provenance, Tree};
    use crate::run::RunSettings;
    use alloc::vec::Vec;

    #[test]
    fn a_program_of_the_release_is_there_and_executable() {
        let entry = |path: &str, kind| Entry { path: path.parse().unwrap(), kind };
        let file = |executable| EntryKind::File(File { executable, chunks: Chunks::new() });
        let tree = Tree::of(Vec::from([
            entry("bin", EntryKind::Dir),
            entry("bin/data", file(false)),
            entry("bin/link", EntryKind::Link { target: "run".to_string() }),
            entry("bin/run", file(true)),
            entry("run", file(true)),
        ]));
        let mut manifest = Manifest {
            service: "web".parse().unwrap(),
            provenance: Provenance { created: 0, builder: String::new(), commit: None },
            run: RunSettings::for_command(Vec::new()),
            tree: tree.unwrap(),
        };
        for (program, fine) in [
            ("python3", true),
            ("/usr/bin/python3", true),
            ("./run", true),
            ("bin/run", true),
            ("./bin/link", true),
            ("bin/data", false),
            ("./bin", false),
            ("./missing", false),
            ("../run", false),
            ("bin/../run", false),
        ] {
            manifest.run.command = Vec::from([program.to_string()]);
            assert_eq!(manifest.check_program().is_ok(), fine, "{program}");
        }
    }
}
