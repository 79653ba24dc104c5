//! Releases made by somebody who means harm: refused with a reason, nothing left, inside or outside.

use std::path::Path;

use baton_core::ids::ReleaseId;
use baton_core::release::{CHUNK_BYTES_MAX, ENTRIES_MAX, RELEASE_BYTES_MAX, id_of};
use baton_release::chunk;
use baton_release::fetch::fetch;
use baton_release::store::memory::MemoryStore;

use crate::sample::{chain, left, nodes, open, push_nodes, read};

const HEAD: &str = "\
baton-manifest 1
service web
created 0
builder \"me\"
";
const RUN: &str = "\
run.command \"true\"
run.overlap yes
run.ready probe
run.startup_timeout 60000
run.drain 30000
run.stop_signal 15
run.on_exit restart
run.max_restarts 10
run.relaunch_exit_code 86
";
/// A chunk of one byte, which the store has.
const ONE: &str = "chunk 17762fddd969a453925d65717ac3eea21320b66b54342fde15128d6caf21215f 1\n";

fn tree(entries: &str) -> String {
    format!("{HEAD}{RUN}limits 1000 20\n{entries}")
}

fn head(from: &str, to: &str) -> String {
    format!("{HEAD}{RUN}limits 0 0\n").replacen(from, to, 1)
}

/// What each manifest tries, its text, and a part of the reason why it is refused.
fn corpus() -> Vec<(&'static str, String, &'static str)> {
    let long_name = "x".repeat(256);
    let long_path = "dir/".repeat(1250) + "f";
    let deep = "d/".repeat(10_000) + "f";
    vec![
        // Paths.
        ("parent", tree("file 0 ../x\n"), "`.` or `..`"),
        ("parent inside", tree("dir a\nfile 0 a/../../x\n"), "`.` or `..`"),
        ("only parent", tree("dir ..\n"), "`.` or `..`"),
        ("absolute", tree("file 0 /etc/cron.d/x\n"), "absolute"),
        ("absolute link", tree("link /tmp/x\nto y\n"), "absolute"),
        ("two slashes", tree("dir a\nfile 0 a//x\n"), "empty name"),
        ("dot", tree("file 0 ./x\n"), "`.` or `..`"),
        ("only a dot", tree("dir .\n"), "`.` or `..`"),
        ("empty path", tree("dir \n"), "it is empty"),
        ("no path", tree("dir\n"), "a word is missing"),
        ("slash at the end", tree("dir a/\n"), "empty name"),
        ("NUL", tree("file 0 a\0b\n"), "control character"),
        ("escape sequence", tree("file 0 a\u{1b}[2Jb\n"), "control character"),
        ("carriage return", tree("dir a\r\n"), "control character"),
        ("delete", tree("file 0 a\u{7f}\n"), "control character"),
        ("backslash", tree("file 0 a\\b\n"), "backslash"),
        ("long name", tree(&format!("file 0 {long_name}\n")), "longer than 255"),
        ("long path", tree(&format!("file 0 {long_path}\n")), "longer than 3072"),
        ("deep path", tree(&format!("file 0 {deep}\n")), "longer than 3072"),
        ("deep but short", tree(&format!("file 0 {}\n", &deep[..2001])), "deeper than 128"),
        // Entries against each other.
        ("twice", tree("file 0 a\nfile 0 a\n"), "listed twice"),
        ("file and directory", tree("file 0 a\ndir a\n"), "listed twice"),
        ("beneath a file", tree("file 0 a\nfile 0 a/b\n"), "is a file"),
        ("beneath a link", tree("link a\nto .\nfile 0 a/b\n"), "is a link"),
        ("deep beneath a link", tree("link a\nto .\nfile 0 a/b/c\n"), "is a link"),
        ("directory not listed", tree("file 0 a/b\n"), "not listed before"),
        ("not sorted", tree("file 0 b\nfile 0 a\n"), "sorted"),
        ("directory after its file", tree("file 0 a/b\ndir a\n"), "not listed before"),
        // Links.
        ("link out", tree("link a\nto ../x\n"), "outside"),
        ("link out deeper", tree("dir a\nlink a/b\nto ../../x\n"), "outside"),
        ("link to the root", tree("link a\nto /\n"), "absolute"),
        ("link up behind a name", tree("link a\nto b/../../x\n"), "behind a name"),
        (
            "chain that leaves",
            tree("dir a\ndir a/b\nlink a/b/up\nto ../..\nlink x\nto a/b/up/..\n"),
            "behind a name",
        ),
        ("link without target", tree("link a\n"), "`to …`"),
        ("link to nothing", tree("link a\nto \n"), "target is empty"),
        ("link with control", tree("link a\nto b\u{1b}c\n"), "control character"),
        ("link with a long target", tree(&format!("link a\nto {long_path}\n")), "longer than 3072"),
        // Limits.
        ("more entries than limit", head("limits 0 0\n", "limits 0 1\ndir a\ndir b\n"), "limit of 1"),
        (
            "more bytes than limit",
            head("limits 0 0\n", &format!("limits 1 9\nfile 1 a\n{ONE}file 1 b\n{ONE}")),
            "limit of 1",
        ),
        ("entries beyond all", head("limits 0 0", &format!("limits 0 {}", ENTRIES_MAX + 1)), "at most"),
        ("bytes beyond all", head("limits 0 0", &format!("limits {} 0", RELEASE_BYTES_MAX + 1)), "at most"),
        ("number that wraps", head("limits 0 0", "limits 18446744073709551616 0"), "is not a number"),
        ("negative", head("limits 0 0", "limits -1 0"), "is not a number"),
        // Files.
        ("size too small", tree(&format!("file 0 a\n{ONE}")), "its chunks have 1"),
        ("size too large", tree(&format!("file 2 a\n{ONE}")), "its chunks have 1"),
        ("size without chunks", tree("file 1099511627776 a\n"), "its chunks have 0"),
        ("empty chunk", tree(&format!("file 0 a\n{}", ONE.replace(" 1\n", " 0\n"))), "1 to 1048576"),
        (
            "long chunk",
            tree(&format!("file {0} a\n{1} {0}\n", CHUNK_BYTES_MAX + 1, &ONE[..70])),
            "1 to 1048576",
        ),
        ("chunk by itself", tree(ONE), "does not exist in a release"),
        ("chunk of a directory", tree(&format!("dir a\n{ONE}")), "does not exist in a release"),
        ("short hash", tree("file 1 a\nchunk 2d3a 1\n"), "not a chunk's hash"),
        ("loud hash", tree(&format!("file 1 a\n{}", ONE.replace('f', "F"))), "not a chunk's hash"),
        // Kinds and modes that do not exist.
        ("device", tree("device 1 3 null\n"), "does not exist in a release"),
        ("fifo", tree("fifo pipe\n"), "does not exist in a release"),
        ("socket", tree("socket s\n"), "does not exist in a release"),
        ("hard link", tree("file 0 a\nhardlink b\nto a\n"), "does not exist in a release"),
        ("setuid mode", tree("file 04755 0 su\n"), "is not a number"),
        ("owner", tree("owner 0 0\n"), "does not exist in a release"),
        (
            "extended attribute",
            tree("file 0 a\nxattr security.capability x\n"),
            "does not exist in a release",
        ),
        // Other spellings.
        ("leading zero", tree("file 00 a\n"), "is not a number"),
        ("plus", tree("file +0 a\n"), "is not a number"),
        ("two spaces", tree("file  0 a\n"), "space too much"),
        ("empty line", tree("\n"), "space too much"),
        ("rubbish at the end", tree("dir a\nand more"), "ends too early"),
        ("not finished", tree("dir a"), "ends too early"),
        ("rubbish after a number", head("limits 0 0", "limits 0 0 0"), "is too much"),
        ("capital kind", tree("Dir a\n"), "does not exist in a release"),
        // The head.
        ("nothing", String::new(), "not a manifest"),
        ("something else", "PK\u{3}\u{4}".to_owned(), "not a manifest"),
        ("another version", head("manifest 1", "manifest 2"), "version \"2\""),
        ("version with zero", head("manifest 1", "manifest 01"), "version \"01\""),
        ("bad service", head("service web", "service ../web"), "not a service's name"),
        ("no service", head("service web\n", ""), "`service …`"),
        ("raw quote", head("\"me\"", "\"m\u{1b}e\""), "in its one right spelling"),
        ("bad commit", head(RUN, &format!("commit HEAD clean\n{RUN}")), "not a git commit"),
        // Settings.
        ("no command", head("run.command \"true\"\n", ""), "`run.command …`"),
        ("empty command", head("run.command \"true\"", "run.command \"\""), "names no program"),
        ("command without words", head("run.command \"true\"", "run.command"), "names no program"),
        ("command with NUL", head("\"true\"", "\"true\" \"\\u{0}\""), "NUL"),
        ("two commands", head("run.overlap", "run.command \"false\"\nrun.overlap"), "`run.overlap …`"),
        ("port 0", head("run.overlap", "run.listen \"a\" 0.0.0.0:0 inherit 1\nrun.overlap"), "port 0"),
        ("signal 0", head("stop_signal 15", "stop_signal 0"), "1 to 64"),
        ("unknown setting", head("limits", "run.colour \"red\"\nlimits"), "`limits …`"),
        (
            "environment not sorted",
            head("limits", "run.env \"b\" \"\"\nrun.env \"a\" \"\"\nlimits"),
            "sorted",
        ),
        ("environment with =", head("limits", "run.env \"a=b\" \"\"\nlimits"), "no `=`"),
        (
            "probe that smuggles",
            head("run.startup", "run.health.probe http \"/ HTTP/1.1\\u{d}\\u{a}X: y\"\nrun.startup"),
            "printable",
        ),
    ]
}

/// Fetches and expects a refusal; afterwards nothing is there that was not before.
fn refuse(store: &MemoryStore, id: ReleaseId, dir: &Path) -> String {
    let before = read(dir);
    let releases = open(&dir.join("member"));
    let error = fetch(id, store, &releases, &|_| {}).unwrap_err();
    assert_eq!(left(&dir.join("member")), [""; 0]);
    std::fs::remove_dir_all(dir.join("member")).unwrap();
    assert_eq!(read(dir), before);
    chain(&error)
}

#[test]
fn p26_hostile_manifests_are_refused_with_a_reason_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("outside"), "untouched").unwrap();
    for (tries, text, reason) in corpus() {
        let store = MemoryStore::new();
        store.plant_chunk(chunk::id_of(b"a"), chunk::pack(b"a").unwrap());
        let id = id_of(&text);
        store.plant_manifest(id, text);
        let said = refuse(&store, id, dir.path());
        assert!(said.contains(reason), "{tries}: {said}");
        assert!(said.contains("refused at line "), "{tries}: {said}");
    }
}

#[test]
fn what_the_corpus_is_made_of_is_fine_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    store.plant_chunk(chunk::id_of(b"a"), chunk::pack(b"a").unwrap());
    let text = tree(&format!("dir a\nfile 1 a/b\n{ONE}link c\nto a/b\n"));
    let id = id_of(&text);
    store.plant_manifest(id, text);
    let releases = open(dir.path());
    fetch(id, &store, &releases, &|_| {}).unwrap();
    assert_eq!(std::fs::read(releases.path(id).join("c")).unwrap(), b"a");
}

#[test]
fn p25_a_manifest_of_another_release_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let (one, two) = (push_nodes(&nodes(1), &store), push_nodes(&nodes(2), &store));
    store.plant_manifest(one.id, two.manifest.to_text());
    assert!(refuse(&store, one.id, dir.path()).contains("is that of release"));
    store.plant_manifest(one.id, one.manifest.to_text().replace("exec 24 run", "file 24 run"));
    assert!(refuse(&store, one.id, dir.path()).contains("is that of release"));
}

#[test]
fn p25_a_chunk_that_is_not_what_its_name_says_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let content = b"the content that was pushed".repeat(100);
    let nodes = [("file".to_owned(), crate::sample::file(&content))].into();
    let (right, id) = (chunk::pack(&content).unwrap(), chunk::id_of(&content));
    let mut flipped = right.clone();
    flipped[right.len() / 2] ^= 1;
    let bomb = zstd::bulk::compress(&vec![0; 256 << 20], 1).unwrap();
    for (what, bytes) in [
        ("swapped", chunk::pack(&content[1..]).unwrap()),
        ("truncated", right[..right.len() - 1].to_vec()),
        ("extended", [&right[..], &right].concat()),
        ("followed by rubbish", [&right[..], b"x"].concat()),
        ("flipped", flipped),
        ("empty", Vec::new()),
        ("not compressed", content.clone()),
        ("bomb", bomb),
        ("longer than any chunk", vec![0; chunk::PACKED_BYTES_MAX + 1]),
    ] {
        let store = MemoryStore::new();
        let pushed = push_nodes(&nodes, &store);
        store.plant_chunk(id, bytes);
        let said = refuse(&store, pushed.id, dir.path());
        assert!(said.contains(&format!("chunk {id} of the release is refused")), "{what}: {said}");
    }
}

#[test]
fn f74_a_chunk_that_is_gone_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let pushed = push_nodes(&nodes(1), &store);
    let gone = baton_release::manifest::chunk_ids(&pushed.manifest)[0];
    store.lose_chunk(gone);
    assert!(refuse(&store, pushed.id, dir.path()).contains(&format!("cannot get chunk {gone}")));
}

#[test]
fn p27_a_hash_with_two_lengths_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    store.plant_chunk(chunk::id_of(b"a"), chunk::pack(b"a").unwrap());
    let text = tree(&format!("file 1 a\n{ONE}file 2 b\n{}", ONE.replace(" 1\n", " 2\n")));
    let id = id_of(&text);
    store.plant_manifest(id, text);
    assert!(refuse(&store, id, dir.path()).contains("1 bytes instead of 2"));
}
