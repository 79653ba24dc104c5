//! What the sizes of the format cost, on real trees: `make bench-format`.
//!
//! Everything is read to memory first, so that the times are those of cutting, hashing and compressing, on one thread.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on says so by panicking")]

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use baton_core::ids::{ChunkId, ReleaseId};
use baton_core::release::outline::{Sizes, cut_to};
use baton_core::run::RunSettings;
use baton_release::fetch::fetch;
use baton_release::push::{Source, push};
use baton_release::releases::ReleasesDir;
use baton_release::store::memory::MemoryStore;
use baton_release::store::{ArtefactStore, StoreError};
use fastcdc::v2020::FastCDC;

/// A tree in memory: paths and contents.
type Tree = BTreeMap<String, Vec<u8>>;
/// A piece of content that is looked up, stored and sent as one.
type Piece<'a> = Vec<&'a [u8]>;

const KIB: usize = 1 << 10;
/// The level that chunks are compressed with.
const LEVEL: i32 = 3;

fn main() {
    let home = std::env::args().nth(1).unwrap_or_else(|| "target/format".to_owned());
    let home = Path::new(&home);
    let trees = [
        ("node_modules", Scene::of(read(&home.join("node")), &home.join("node-upgraded"), "")),
        ("Python environment", {
            let site = "lib/python3.11/site-packages/";
            Scene::of(read(&home.join("python")), &home.join("python-upgraded"), site)
        }),
        ("one binary", Scene::of(read(&home.join("binary/old")), &home.join("binary/new"), "")),
    ];
    for (name, scene) in &trees {
        let bytes: usize = scene.before.values().map(Vec::len).sum();
        println!("\n{name}: {} files, {:.1} MB", scene.before.len(), mb(bytes));
        for (change, after) in &scene.after {
            let changed = after.iter().filter(|(path, content)| scene.before.get(*path) != Some(content));
            let changed: Vec<&Vec<u8>> = changed.map(|(_, content)| content).collect();
            let alone: usize = changed.iter().map(|content| compressed(content)).sum();
            println!("{change}: {} files changed, {:.1} kB compressed one by one", changed.len(), kb(alone));
        }
    }
    for (name, scene) in &trees {
        println!("\n{name}: how small files share, with chunks of 16 KiB on average\n{}", head(scene));
        for (what, share) in [
            ("each file by itself", Share::Nothing),
            ("groups of 16 KiB", Share::Groups(16 * KIB)),
            ("groups of 64 KiB", Share::Groups(64 * KIB)),
            ("groups of 256 KiB", Share::Groups(256 * KIB)),
            ("frames of 64 KiB", Share::Frames(64 * KIB)),
            ("frames of 128 KiB", Share::Frames(128 * KIB)),
            ("frames of 256 KiB", Share::Frames(256 * KIB)),
            ("frames of 512 KiB", Share::Frames(512 * KIB)),
            ("frames of 1 MiB", Share::Frames(1024 * KIB)),
        ] {
            println!("{}", row(what, scene, 16 * KIB, &share));
        }
    }
    for (name, scene) in &trees {
        println!("\n{name}: how the manifest is cut\n| | chunks | kB outline{} |", changes(scene));
        println!("|{}", " --- |".repeat(3 + scene.after.len()));
        for lines in [24, 48, 96, 192, 384] {
            println!("{}", manifest_row(scene, lines));
        }
    }
    for (name, scene) in &trees {
        println!(
            "\n{name}: as it is, through a store in memory\n| | requests of the push | kB pushed | ms | requests of the fetch | kB fetched | ms |\n|{}",
            " --- |".repeat(7)
        );
        as_it_is(scene);
    }
    for (name, scene) in &trees {
        println!("\n{name}: how large files are cut, with frames of 256 KiB\n{}", head(scene));
        for average in [8, 16, 32, 64, 128, 256] {
            let what = format!("chunks of {average} KiB");
            println!("{}", row(&what, scene, average * KIB, &Share::Frames(256 * KIB)));
        }
    }
}

/// A tree before and after changes.
struct Scene {
    before: Tree,
    after: Vec<(&'static str, Tree)>,
}

impl Scene {
    fn of(before: Tree, upgrade: &Path, into: &str) -> Self {
        let edited = |count: usize| {
            let mut after = before.clone();
            let texts = |(path, content): &(&String, &mut Vec<u8>)| {
                let known = [".js", ".py"].iter().any(|end| path.ends_with(end)) || before.len() == 1;
                known && (2_000..20_000).contains(&content.len()) || before.len() == 1
            };
            let mut texts: Vec<_> = after.iter_mut().filter(texts).collect();
            let step = texts.len().div_ceil(count + 1);
            for (_, content) in texts.iter_mut().skip(step / 2).step_by(step).take(count) {
                let middle = content.len() / 2;
                content.splice(middle..middle, *b"\n// one line more\n");
            }
            after
        };
        let mut upgraded = before.clone();
        upgraded.extend(read(upgrade).into_iter().map(|(path, content)| (format!("{into}{path}"), content)));
        let mut after = vec![("one edit", edited(1))];
        if before.len() > 1 {
            after.push(("twenty edits", edited(20)));
        }
        after.push(("upgrade", upgraded));
        Self { before, after }
    }
}

/// How small files share what is compressed and looked up.
enum Share {
    Nothing,
    /// Neighbours in the order of paths make up one chunk of this size on average; a change makes a new one.
    Groups(usize),
    /// Each file is a chunk; those that are new in a push are compressed together, up to this size.
    Frames(usize),
}

fn changes(scene: &Scene) -> String {
    scene.after.iter().map(|(what, _)| format!(" | kB for {what}")).collect()
}

/// The lines of a manifest with this tree.
fn manifest(tree: &Tree) -> String {
    let mut text = String::new();
    for (path, content) in tree {
        writeln!(text, "file {} {path}", content.len()).unwrap();
        for chunk in pieces(&Tree::from([(path.clone(), content.clone())]), 16 * KIB, &Share::Nothing) {
            writeln!(text, "chunk {} {}", blake3::hash(chunk[0]), chunk[0].len()).unwrap();
        }
    }
    text
}

/// The chunks of a text in their order, and what lists them.
fn parts(text: &str, sizes: Sizes) -> (Vec<(ChunkId, Vec<u8>)>, String) {
    let pieces = cut_to(text.as_bytes(), sizes).into_iter().map(|piece| text.as_bytes()[piece].to_vec());
    let parts: Vec<_> = pieces.map(|piece| (ChunkId::of(&piece), piece)).collect();
    let outline = parts.iter().map(|(id, part)| format!("chunk {id} {}\n", part.len())).collect();
    (parts, outline)
}

/// What the parts of a manifest cost that changed, with the outline that lists them, once whole and once by its parts.
fn manifest_row(scene: &Scene, lines: u64) -> String {
    let sizes = Sizes { min: lines as usize * 21, max: lines as usize * 341, lines };
    let (before, outline) = parts(&manifest(&scene.before), sizes);
    let (listing, _) = parts(&outline, sizes);
    let known: HashSet<ChunkId> = before.iter().chain(&listing).map(|(id, _)| *id).collect();
    let new = |parts: &[(ChunkId, Vec<u8>)]| {
        let new: Vec<u8> =
            parts.iter().filter(|(id, _)| !known.contains(id)).flat_map(|(_, part)| part).copied().collect();
        compressed(&new)
    };
    let row = |(_, tree): &(&str, Tree)| {
        let (after, outline) = parts(&manifest(tree), sizes);
        let (listing, top) = parts(&outline, sizes);
        let (whole, by_parts) = (compressed(outline.as_bytes()), new(&listing) + compressed(top.as_bytes()));
        format!(" | {:.1} or {:.1}", kb(new(&after) + whole), kb(new(&after) + by_parts))
    };
    let changes: String = scene.after.iter().map(row).collect();
    format!("| 1 line in {lines} | {} | {:.1}{changes} |", before.len(), kb(compressed(outline.as_bytes())))
}

/// A store that counts what travels.
#[derive(Default)]
struct Counting {
    store: MemoryStore,
    bytes: AtomicUsize,
}

impl Counting {
    fn sent(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl ArtefactStore for Counting {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>, StoreError> {
        let missing = self.store.missing(ids)?;
        self.sent(65 * (ids.len() + missing.len()));
        Ok(missing)
    }

    fn put(&self, pack: &[u8]) -> Result<(), StoreError> {
        self.sent(pack.len());
        self.store.put(pack)
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<u8>, StoreError> {
        let pack = self.store.get(ids)?;
        self.sent(65 * ids.len() + pack.len());
        Ok(pack)
    }

    fn publish(&self, id: ReleaseId, outline: &[u8]) -> Result<(), StoreError> {
        self.sent(outline.len());
        self.store.publish(id, outline)
    }

    fn outline(&self, id: ReleaseId) -> Result<Vec<u8>, StoreError> {
        let outline = self.store.outline(id)?;
        self.sent(outline.len());
        Ok(outline)
    }

    fn sign(&self, id: ReleaseId, approval: &str) -> Result<(), StoreError> {
        self.sent(approval.len());
        self.store.sign(id, approval)
    }

    fn approvals(&self, id: ReleaseId) -> Result<Vec<String>, StoreError> {
        self.store.approvals(id)
    }

    fn list(&self) -> Result<Vec<ReleaseId>, StoreError> {
        self.store.list()
    }
}

/// Pushes and fetches the tree, and then each change of it, to a member that has the tree.
fn as_it_is(scene: &Scene) {
    let dir = tempfile::tempdir_in("target").unwrap();
    let (source, store) = (dir.path().join("source"), Counting::default());
    let releases = ReleasesDir::open(&dir.path().join("state")).unwrap();
    let put = |path: &str, content: &[u8]| {
        let path = source.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    scene.before.iter().for_each(|(path, content)| put(path, content));
    let request = Source {
        dir: source.clone(),
        service: "web".parse().unwrap(),
        run: RunSettings::for_command(vec!["true".to_owned()]),
        builder: "bench".to_owned(),
    };
    // What ignore files exclude in one's own tree is wanted here.
    fs::write(source.join(".batonignore"), "!*\n").unwrap();
    let measure = |what: &str| {
        let mut cells = Vec::new();
        let mut id = None;
        for fetching in [false, true] {
            let (calls, bytes, start) =
                (store.store.calls(), store.bytes.load(Ordering::Relaxed), Instant::now());
            match fetching {
                false => id = Some(push(&request, &store, &|_| {}).unwrap().id),
                true => drop(fetch(id.unwrap(), &store, &releases, &|_| {}).unwrap()),
            }
            let (calls, bytes) = (store.store.calls() - calls, store.bytes.load(Ordering::Relaxed) - bytes);
            cells.push(format!("{calls} | {:.1} | {}", kb(bytes), start.elapsed().as_millis()));
        }
        println!("| {what} | {} |", cells.join(" | "));
    };
    measure("all");
    measure("nothing");
    for (what, after) in &scene.after {
        let changed = || after.iter().filter(|(path, content)| scene.before.get(*path) != Some(content));
        changed().for_each(|(path, content)| put(path, content));
        measure(what);
        for (path, _) in changed() {
            match scene.before.get(path) {
                Some(content) => put(path, content),
                None => fs::remove_file(source.join(path)).unwrap(),
            }
        }
    }
}

fn head(scene: &Scene) -> String {
    let changes = changes(scene);
    format!("| | chunks | objects | MB cold{changes} | s cold |\n|{}", " --- |".repeat(5 + scene.after.len()))
}

fn row(what: &str, scene: &Scene, average: usize, share: &Share) -> String {
    let start = Instant::now();
    let before = pieces(&scene.before, average, share);
    let (known, objects, bytes) = pushed(&before, &HashSet::new(), share);
    let took: Duration = start.elapsed();
    let changes: String = scene
        .after
        .iter()
        .map(|(_, tree)| pushed(&pieces(tree, average, share), &known, share).2)
        .map(|bytes| format!(" | {:.1}", kb(bytes)))
        .collect();
    let (count, seconds) = (known.len(), took.as_secs_f64());
    format!("| {what} | {count} | {objects} | {:.1}{changes} | {seconds:.2} |", mb(bytes))
}

/// Everything that is looked up by its hash, in the order of paths.
fn pieces<'a>(tree: &'a Tree, average: usize, share: &Share) -> Vec<Piece<'a>> {
    let mut all = Vec::new();
    let mut group = Vec::new();
    for content in tree.values().filter(|content| !content.is_empty()) {
        if content.len() > average / 4 {
            all.extend(cut(content, average).map(|chunk| vec![chunk]));
            continue;
        }
        let Share::Groups(size) = share else {
            all.push(vec![content.as_slice()]);
            continue;
        };
        group.push(content.as_slice());
        let bytes: usize = group.iter().map(|content| content.len()).sum();
        // Where a group ends depends on its last file alone, so that it ends there again after a change.
        let hash = u64::from_le_bytes(blake3::hash(content).as_bytes()[..8].try_into().unwrap());
        let ends = hash % (*size as u64) < 2 * content.len() as u64;
        if bytes >= size / 2 && ends || bytes >= size * 4 {
            all.push(std::mem::take(&mut group));
        }
    }
    all.extend((!group.is_empty()).then_some(group));
    all
}

fn cut(content: &[u8], average: usize) -> impl Iterator<Item = &[u8]> {
    let cuts = FastCDC::new(content, average / 4, average, average * 4);
    cuts.map(|chunk| &content[chunk.offset..chunk.offset + chunk.length])
}

/// What a store knows after a push, how many objects and how many bytes it took.
fn pushed(
    pieces: &[Piece<'_>],
    known: &HashSet<blake3::Hash>,
    share: &Share,
) -> (HashSet<blake3::Hash>, usize, usize) {
    let mut all = known.clone();
    let (mut objects, mut bytes, mut frame) = (0, 0, Vec::new());
    for piece in pieces {
        let content = piece.concat();
        if !all.insert(blake3::hash(&content)) {
            continue;
        }
        match share {
            Share::Nothing | Share::Groups(_) => {
                objects += 1;
                bytes += compressed(&content);
            }
            Share::Frames(size) => {
                frame.extend_from_slice(&content);
                if frame.len() >= *size {
                    objects += 1;
                    bytes += compressed(&std::mem::take(&mut frame));
                }
            }
        }
    }
    if !frame.is_empty() {
        objects += 1;
        bytes += compressed(&frame);
    }
    (all, objects, bytes)
}

fn compressed(content: &[u8]) -> usize {
    zstd::bulk::compress(content, LEVEL).unwrap().len()
}

fn read(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap();
            if kind.is_dir() {
                dirs.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                tree.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    tree
}

fn mb(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

fn kb(bytes: usize) -> f64 {
    bytes as f64 / 1e3
}
