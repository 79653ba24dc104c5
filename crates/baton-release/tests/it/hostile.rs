//! Releases made by somebody who means harm: refused with a reason, nothing left, inside or outside.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use baton_core::ids::ReleaseId;
use baton_core::release::{CHUNK_BYTES_MAX, ENTRIES_MAX, RELEASE_BYTES_MAX, id_of};
use baton_release::fetch::{FetchError, fetch, fetch_if};
use baton_release::pack;
use baton_release::store::memory::MemoryStore;

use crate::sample::{chain, chunk, left, nodes, open, plant_chunk, plant_manifest, push_nodes, read};

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
        ("link instead of a directory", tree("link a\nto .\ndir a\n"), "listed twice"),
        ("directory instead of a link", tree("dir a\nlink a\nto ..\n"), "listed twice"),
        ("file instead of a link", tree("link a\nto x\nfile 0 a\n"), "listed twice"),
        ("line feed in a name", tree("file 0 a\nb\n"), "does not exist in a release"),
        // Links.
        ("through a loop", tree("link a\nto b\nfile 0 a/x\nlink b\nto a\n"), "is a link"),
        ("through a chain", tree("link a\nto b\nlink b\nto .\nfile 0 b/x\n"), "is a link"),
        ("link to itself and beneath", tree("link a\nto a\ndir a/b\n"), "is a link"),
        ("link to what the system has open", tree("link a\nto /proc/self/fd/3\n"), "absolute"),
        ("link out", tree("link a\nto ../x\n"), "outside"),
        ("link out deeper", tree("dir a\nlink a/b\nto ../../x\n"), "outside"),
        ("link to the root", tree("link a\nto /\n"), "absolute"),
        ("link up behind a name", tree("link a\nto b/../../x\n"), "behind a name"),
        (
            "chain that leaves",
            tree("dir a\ndir a/b\nlink a/b/up\nto ../..\nlink x\nto a/b/up/..\n"),
            "behind a name",
        ),
        ("link outside that is not listed", tree("external /opt/a\nlink a\nto /opt/b\n"), "does not name it"),
        ("link beneath what is listed", tree("external /opt\nlink a\nto /opt/b\n"), "does not name it"),
        ("link to another spelling", tree("external /opt\nlink a\nto /opt/\n"), "does not name it"),
        ("link to a detour", tree("external /opt\nlink a\nto /opt/../etc\n"), "does not name it"),
        ("everything listed", tree("external /\nlink a\nto /etc\n"), "not an absolute path"),
        ("detour listed", tree("external /opt/../etc\nlink a\nto /opt/../etc\n"), "not an absolute path"),
        ("nothing listed", tree("external \nlink a\nto /\n"), "not an absolute path"),
        ("relative listed", tree("external ../x\nlink a\nto ../x\n"), "not an absolute path"),
        ("escape listed", tree("external /\u{1b}[2J\n"), "not an absolute path"),
        (
            "process listed",
            tree("external /proc/self/exe\nlink a\nto /proc/self/exe\n"),
            "/proc, /sys or /dev",
        ),
        ("disk listed", tree("external /dev/sda\nlink a\nto /dev/sda\n"), "/proc, /sys or /dev"),
        ("listed twice", tree("external /a\nexternal /a\n"), "each once"),
        ("listed in another order", tree("external /b\nexternal /a\n"), "sorted"),
        (
            "listed without end",
            tree(&(0..70).map(|n| format!("external /{n:02}\n")).collect::<String>()),
            "more than 64",
        ),
        ("listed too late", tree("dir a\nexternal /opt\n"), "does not exist in a release"),
        ("beneath a link outside", tree("external /opt\nlink a\nto /opt\nfile 0 a/x\n"), "is a link"),
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
        ("more entries than any release", tree(&"dir a\n".repeat(21)), "listed twice"),
        (
            "files without end",
            tree(&(0..30).map(|n| format!("file 0 {n:02}\n")).collect::<String>()),
            "limit of 20",
        ),
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
        ("setgid directory", tree("mode 2755 a\n"), "does not exist in a release"),
        ("sticky directory", tree("sticky a\n"), "does not exist in a release"),
        ("block device", tree("block 8 0 sda\n"), "does not exist in a release"),
        ("whiteout", tree("whiteout a\n"), "does not exist in a release"),
        ("sparse file", tree("sparse 1099511627776 a\n"), "does not exist in a release"),
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

fn compressed(content: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(content, 1).unwrap()
}

#[test]
fn f75_a_release_of_another_service_is_refused_before_anything_of_it_is_fetched() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let id = push_nodes(&nodes(1), &store).id;
    let member = |service: &str| open(&dir.path().join(service)).only_for(service.parse().unwrap());
    let steps = AtomicUsize::new(0);
    let count = |_| {
        steps.fetch_add(1, Ordering::SeqCst);
    };
    let refused = fetch(id, &store, &member("api"), &count).unwrap_err();
    assert_eq!(chain(&refused), "it was made for service web, and this is api");
    assert_eq!((steps.into_inner(), left(&dir.path().join("api"))), (0, Vec::new()));
    fetch(id, &store, &member("web"), &|_| {}).unwrap();
}

#[test]
fn p38_what_is_not_allowed_is_refused_before_anything_is_created_and_asked_for_meanwhile() {
    let (store, dir) = (MemoryStore::new(), tempfile::tempdir().unwrap());
    let id = push_nodes(&nodes(1), &store).id;
    let (releases, before) = (open(dir.path()), store.calls());
    let (asked, steps) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let count = |_| {
        steps.fetch_add(1, Ordering::SeqCst);
    };
    let allowed = |answer: bool| {
        move |asked: &AtomicUsize| {
            asked.fetch_add(1, Ordering::SeqCst);
            answer
        }
    };
    let (no, yes) = (allowed(false), allowed(true));
    let no = || {
        // The store has been asked by then, and not for content.
        assert!(store.calls() > before);
        no(&asked)
    };
    assert!(matches!(fetch_if(id, &store, &releases, &no, &count), Err(FetchError::NotAllowed)));
    assert_eq!(
        (steps.load(Ordering::SeqCst), asked.load(Ordering::SeqCst), left(dir.path())),
        (0, 1, Vec::new())
    );
    fetch_if(id, &store, &releases, &|| yes(&asked), &count).unwrap();
    fetch_if(id, &store, &releases, &|| panic!("it is there"), &count).unwrap();
    assert_eq!(asked.into_inner(), 2);
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
    let corpus = corpus();
    println!("{} manifests, each refused", corpus.len());
    for (tries, text, reason) in corpus {
        let store = MemoryStore::new();
        plant_chunk(&store, chunk(b"a"), compressed(b"a"));
        let id = id_of(&text);
        plant_manifest(&store, id, &text);
        let said = refuse(&store, id, dir.path());
        assert!(said.contains(reason), "{tries}: {said}");
        assert!(said.contains("refused at line "), "{tries}: {said}");
    }
}

#[test]
fn what_the_corpus_is_made_of_is_fine_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    plant_chunk(&store, chunk(b"a"), compressed(b"a"));
    let text = tree(&format!("dir a\nfile 1 a/b\n{ONE}link c\nto a/b\n"));
    let id = id_of(&text);
    plant_manifest(&store, id, &text);
    let releases = open(dir.path());
    fetch(id, &store, &releases, &|_| {}).unwrap();
    assert_eq!(std::fs::read(releases.path(id).join("c")).unwrap(), b"a");
}

#[test]
fn p25_a_manifest_of_another_release_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    let (one, two) = (push_nodes(&nodes(1), &store), push_nodes(&nodes(2), &store));
    plant_manifest(&store, one.id, &two.manifest.to_text());
    assert!(refuse(&store, one.id, dir.path()).contains("is that of release"));
    plant_manifest(&store, one.id, &one.manifest.to_text().replace("exec 24 run", "file 24 run"));
    assert!(refuse(&store, one.id, dir.path()).contains("is that of release"));
}

#[test]
fn p25_a_chunk_that_is_not_what_its_name_says_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let content = b"the content that was pushed".repeat(100);
    let nodes = [("file".to_owned(), crate::sample::file(&content))].into();
    let right = compressed(&content);
    let mut flipped = right.clone();
    flipped[right.len() / 2] ^= 1;
    let bomb = compressed(&vec![0; 256 << 20]);
    let all = [
        ("swapped", compressed(&content[1..]), "bytes instead of"),
        ("other content", compressed(&vec![7; content.len()]), "what should be chunk"),
        ("truncated", right[..right.len() - 1].to_vec(), "cannot decompress"),
        ("extended", [&right[..], &right].concat(), "cannot decompress"),
        ("followed by rubbish", [&right[..], b"x"].concat(), "cannot decompress"),
        ("flipped", flipped, ""),
        ("empty", Vec::new(), "bytes instead of"),
        ("not compressed", content.clone(), "cannot decompress"),
        ("bomb", bomb, "cannot decompress"),
        ("longer than any frame", vec![0; 2 << 20], "packed bytes in the frame"),
        ("longer than any pack", vec![0; 7 << 20], "more than 6291456 bytes"),
    ];
    println!("{} chunks, each refused", all.len());
    for (what, bytes, reason) in all {
        let store = MemoryStore::new();
        let pushed = push_nodes(&nodes, &store);
        plant_chunk(&store, chunk(&content), bytes);
        let said = refuse(&store, pushed.id, dir.path());
        assert!(said.contains("what the artefact store sent is refused"), "{what}: {said}");
        assert!(said.contains(reason), "{what}: {said}");
    }
}

#[test]
fn p26_packs_that_lie_are_refused_with_a_reason_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (id, one) = (chunk(b"a").id, compressed(b"a"));
    let pack = |index: String, data: &[u8]| [index.as_bytes(), data].concat();
    let frame = |packed: usize, chunks: &str| format!("frame {packed}\n{chunks}");
    let chunk_line = format!("chunk {id} 1\n");
    let head = |frames: &str, data: usize| format!("baton-pack 1\n{frames}data {data}\n");
    let length = one.len();
    let right = pack(head(&frame(length, &chunk_line), length), &one);
    let other = pack::of(b"other").unwrap();
    let all = [
        ("nothing", Vec::new(), "not a pack"),
        ("something else", b"<html>".to_vec(), "not a pack"),
        ("another version", pack(head("", 0).replace(" 1", " 2"), b""), "version \"2\""),
        ("no frames", pack(head("", 0), b""), "none of the chunks"),
        ("another chunk", other, "none of the chunks"),
        ("index cut short", right[..40].to_vec(), "ends too early"),
        (
            "index that does not end",
            pack("baton-pack 1\n".to_owned() + &frame(1, &chunk_line).repeat(9), b""),
            "`data …`",
        ),
        ("frames cut short", right[..right.len() - 1].to_vec(), "there are"),
        ("more than the frames", [&right[..], b"x"].concat(), "there are"),
        ("frame beyond the end", pack(head(&frame(length + 9, &chunk_line), length + 9), &one), "there are"),
        (
            "frame that is too short",
            pack(head(&frame(length - 1, &chunk_line), length - 1), &one[1..]),
            "cannot decompress",
        ),
        ("frames that overlap", pack(head(&frame(length, &chunk_line).repeat(2), length), &one), "there are"),
        (
            "sum that wraps",
            pack(head(&frame(u32::MAX as usize, &chunk_line).repeat(2), length), &one),
            "packed bytes",
        ),
        (
            "offset",
            pack(head(&frame(length, &chunk_line).replace("frame ", "frame 0 "), length), &one),
            "too much",
        ),
        ("frame without chunks", pack(head(&frame(length, ""), length), &one), "no chunk"),
        ("chunk without frame", pack(head(&chunk_line, length), &one), "`data …`"),
        (
            "empty chunk",
            pack(head(&frame(length, &chunk_line.replace(" 1\n", " 0\n")), length), &one),
            "1 to 1048576",
        ),
        (
            "chunk in the wrong frame",
            pack(head(&frame(length, &chunk_line.repeat(2)), length), &one),
            "bytes instead of 2",
        ),
        (
            "other length",
            pack(head(&frame(length, &chunk_line.replace(" 1\n", " 2\n")), length), &one),
            "bytes instead of 2",
        ),
        (
            "other content",
            pack(head(&frame(length, &chunk_line), length), &compressed(b"b")),
            "what should be chunk",
        ),
        (
            "bomb",
            {
                let bomb = compressed(&vec![0; 64 << 20]);
                pack(head(&frame(bomb.len(), &chunk_line), bomb.len()), &bomb)
            },
            "cannot decompress",
        ),
        (
            "bomb of chunks",
            pack(head(&frame(length, &format!("chunk {id} 1048576\n").repeat(2)), length), &one),
            "bytes in the frame",
        ),
        (
            "chunks without end",
            pack(head(&frame(length, &chunk_line.repeat(20_000)), length), &one),
            "more than 16384",
        ),
        ("frames without end", pack(head(&frame(0, &chunk_line).repeat(20_000), 0), b""), "more than 16384"),
        (
            "signed from the future",
            pack(head(&(frame(length, &chunk_line) + "signature x\n"), length), &one),
            "`data …`",
        ),
    ];
    println!("{} packs, each refused", all.len());
    for (what, answer, reason) in all {
        let store = MemoryStore::new();
        let text = tree(&format!("file 1 a\n{ONE}"));
        let release = id_of(&text);
        plant_manifest(&store, release, &text);
        store.plant_answer(id, answer);
        let said = refuse(&store, release, dir.path());
        assert!(said.contains(reason), "{what}: {said}");
    }
}

#[test]
fn p26_outlines_that_lie_are_refused_with_a_reason_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let text = tree("dir a\n");
    let (id, part) = (id_of(&text), chunk(text.as_bytes()));
    let outline = |bytes: usize, chunks: String| format!("baton-outline 1\nmanifest {bytes}\n{chunks}");
    let line = format!("chunk {} {}\n", part.id, part.bytes);
    let length = text.len();
    let itself = outline(0, String::new());
    let nested = itself.replace("\nmanifest", "\noutline");
    let all = [
        ("nothing", Vec::new(), "outline is refused at line 1"),
        ("not compressed", text.clone().into_bytes(), "cannot be decompressed"),
        ("bomb", compressed(&vec![b'x'; 64 << 20]), "cannot be decompressed"),
        ("not text", compressed(b"\xff\xfe"), "cannot be decompressed"),
        ("the manifest itself", compressed(text.as_bytes()), "not an outline"),
        (
            "another version",
            compressed(outline(length, line.clone()).replace(" 1\n", " 2\n").as_bytes()),
            "version \"2\"",
        ),
        ("other sum", compressed(outline(length + 1, line.clone()).as_bytes()), "there are"),
        (
            "longer than any manifest",
            compressed(outline(1 << 40, line.clone()).as_bytes()),
            "more than 67108864",
        ),
        ("empty chunk", compressed(outline(0, format!("chunk {} 0\n", part.id)).as_bytes()), "1 to 1048576"),
        ("no chunks", compressed(outline(0, String::new()).as_bytes()), "is that of release"),
        (
            "one chunk too much",
            compressed(outline(2 * length, line.repeat(2)).as_bytes()),
            "is that of release",
        ),
        ("chunk that is not there", compressed(outline(1, ONE.to_owned()).as_bytes()), "cannot get chunk"),
        (
            "chunk of another length",
            compressed(outline(7, format!("chunk {} 7\n", part.id)).as_bytes()),
            "bytes instead of 7",
        ),
        (
            "an outline of a manifest",
            compressed(outline(length, line).replace("\nmanifest", "\noutline").as_bytes()),
            "not an outline",
        ),
        (
            "an outline of an outline of an outline",
            {
                let line = format!("chunk {} {}\n", chunk(nested.as_bytes()).id, nested.len());
                compressed(outline(nested.len(), line).replace("\nmanifest", "\noutline").as_bytes())
            },
            "lists an outline that lists an outline",
        ),
        (
            "an outline of itself",
            compressed(
                outline(itself.len(), format!("chunk {} {}\n", chunk(itself.as_bytes()).id, itself.len()))
                    .as_bytes(),
            ),
            "is that of release",
        ),
    ];
    println!("{} outlines, each refused", all.len());
    for (what, packed, reason) in all {
        let store = MemoryStore::new();
        plant_manifest(&store, id, &text);
        for text in [&itself, &nested] {
            plant_chunk(&store, chunk(text.as_bytes()), compressed(text.as_bytes()));
        }
        store.plant_outline(id, packed);
        let said = refuse(&store, id, dir.path());
        assert!(said.contains(reason), "{what}: {said}");
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
fn f96_a_manifest_that_is_no_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = tree("dir a\n");
    for wrong in [&b"\xff\xfe"[..], b"dir \xc3\x28\n", b"dir \xed\xa0\x80\n"] {
        let bytes = [text.as_bytes(), wrong].concat();
        let (id, part) = (ReleaseId::from_bytes(*blake3::hash(&bytes).as_bytes()), chunk(&bytes));
        let store = MemoryStore::new();
        plant_chunk(&store, part, compressed(&bytes));
        let outline = format!("baton-outline 1\nmanifest {0}\nchunk {1} {0}\n", part.bytes, part.id);
        store.plant_outline(id, compressed(outline.as_bytes()));
        assert!(refuse(&store, id, dir.path()).contains("is that of release"), "{wrong:?}");
    }
}

#[test]
fn p27_a_hash_with_two_lengths_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = MemoryStore::new();
    plant_chunk(&store, chunk(b"a"), compressed(b"a"));
    let text = tree(&format!("file 1 a\n{ONE}file 2 b\n{}", ONE.replace(" 1\n", " 2\n")));
    let id = id_of(&text);
    plant_manifest(&store, id, &text);
    assert!(refuse(&store, id, dir.path()).contains("1 bytes instead of 2"));
}
