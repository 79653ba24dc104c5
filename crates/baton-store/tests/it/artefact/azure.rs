//! A server that speaks like Azure's blobs: Azurite, Microsoft's own emulator, which checks keys and signed addresses.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use baton_store::artefact::BucketStore;

/// The account that Azurite has, and its key, as everybody knows it.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Numbers the stores of this test program: each has a prefix of its own.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Azurite, which is started once and ends with this program.
struct Azurite {
    endpoint: String,
    _child: Child,
}

fn running() -> &'static Azurite {
    static AZURITE: OnceLock<Azurite> = OnceLock::new();
    AZURITE.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new("node")
            .arg(here.join("tests/azurite/serve.js"))
            .arg(here.join("../../target/azurite"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs node: scripts/setup test");
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        assert!(endpoint.ends_with('\n'), "this test needs azurite: scripts/setup test");
        Azurite { endpoint: endpoint.trim().to_owned(), _child: child }
    })
}

/// A new store there.
pub fn store() -> BucketStore {
    open(&format!("some/prefix-{}", NUMBER.fetch_add(1, Ordering::Relaxed)), KEY)
}

/// The store behind that prefix.
pub fn open(prefix: &str, key: &str) -> BucketStore {
    let variables = [
        ("AZURE_STORAGE_ENDPOINT", running().endpoint.as_str()),
        ("AZURE_ALLOW_HTTP", "true"),
        ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
        ("AZURE_STORAGE_ACCOUNT_KEY", key),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    BucketStore::open(&format!("az://bucket/{prefix}"), variables).unwrap()
}
