//! Google Cloud Storage as far as its client here speaks with it: the XML API in front of moto, which keeps the objects.
//!
//! No emulator that can be had knows that API. It is that of S3 in other words: so these are put into those of S3, as Google's
//! pages have them, and what is not known here is refused. Who asks is checked as there: by the signature of a token, or of an
//! address.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use baton_store::artefact::BucketStore;
use percent_encoding::percent_decode_str;
use ring::digest::{SHA256, digest};
use ring::rsa::KeyPair;
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

use super::http::read_message;
use super::s3;

/// Who asks.
const ACCOUNT: &str = "control@baton.iam.gserviceaccount.com";
/// The host that addresses are signed for, wherever they lead.
const HOST: &str = "storage.googleapis.com";

/// Numbers the stores of this test program: each has a prefix of its own.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A request: its method and path, whether it was to write only what is not there, and the status of the answer.
pub type Asked = (String, bool, u16);

/// The key of an account, as Google gives it out.
pub struct Key {
    pem: String,
    public: Vec<u8>,
}

impl Key {
    pub fn new() -> Self {
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
            .output()
            .expect("this test needs openssl: scripts/setup test");
        let pem = String::from_utf8(made.stdout).unwrap();
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let pair = KeyPair::from_pkcs8(&STANDARD.decode(text).unwrap()).unwrap();
        Self { pem, public: pair.public_key().as_ref().to_vec() }
    }

    fn has_signed(&self, text: &str, signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public);
        key.verify(text.as_bytes(), signature).is_ok()
    }
}

/// It serves until the test program ends.
pub struct Google {
    pub address: SocketAddr,
    key: Arc<Key>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// The one that all tests share.
pub fn google() -> &'static Google {
    static GOOGLE: OnceLock<Google> = OnceLock::new();
    GOOGLE.get_or_init(Google::start)
}

/// A new store there.
pub fn store() -> BucketStore {
    google().open(&prefix())
}

pub fn prefix() -> String {
    format!("some/google-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

impl Google {
    fn start() -> Self {
        let (key, moto) = (Arc::new(Key::new()), s3::moto());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (keys, all) = (Arc::clone(&key), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, key, asked) = (stream.unwrap(), Arc::clone(&keys), Arc::clone(&all));
                // What breaks here breaks the test that asked.
                thread::spawn(move || drop(serve(&stream, moto, &key, &asked)));
            }
        });
        Self { address, key, asked }
    }

    /// The store behind that prefix.
    pub fn open(&self, prefix: &str) -> BucketStore {
        self.open_with(prefix, &self.key)
    }

    /// The same for who has this key.
    pub fn open_with(&self, prefix: &str, key: &Key) -> BucketStore {
        let account =
            json!({ "private_key": key.pem, "private_key_id": "1", "client_email": ACCOUNT }).to_string();
        let variables = [
            ("GOOGLE_BASE_URL", format!("http://{}", self.address)),
            ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", account),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value));
        BucketStore::open(&format!("gs://bucket/{prefix}"), variables).unwrap()
    }

    /// What was asked behind a prefix.
    pub fn asked(&self, prefix: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(line, ..)| line.contains(prefix)).cloned().collect()
    }
}

fn serve(mut stream: &TcpStream, moto: SocketAddr, key: &Key, asked: &Mutex<Vec<Asked>>) -> io::Result<()> {
    let Some((head, body)) = read_message(&mut BufReader::new(stream))? else { return Ok(()) };
    let [method, target, _] = head[0].split(' ').collect::<Vec<_>>().try_into().unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let value = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let signed = query.contains("X-Goog-Signature=");
    let is_known = match (signed, value("authorization").and_then(|value| value.strip_prefix("Bearer "))) {
        (true, None) => address_is_right(key, method, path, query),
        (false, Some(token)) => token_is_right(key, token),
        (true, Some(_)) | (false, None) => false,
    };
    let path = percent_decode_str(path).decode_utf8().unwrap().into_owned();
    let of_s3 = head[1..].iter().filter_map(|line| in_s3s_words(line)).collect::<Result<String, _>>();
    let answer = match of_s3 {
        _ if !is_known => refusal(403),
        Err(()) => refusal(501),
        Ok(lines) => {
            let query = if signed || query.is_empty() { String::new() } else { format!("?{query}") };
            // Moto believes whoever says anything.
            let who = "authorization: AWS4-HMAC-SHA256 Credential=key/1/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
            let first =
                format!("{method} {path}{query} HTTP/1.1\r\nhost: {moto}\r\nconnection: close\r\n{who}");
            let head = format!("{first}\r\n{lines}\r\n");
            let mut upstream = TcpStream::connect(moto)?;
            upstream.write_all(&[head.as_bytes(), &body].concat())?;
            let mut answer = Vec::new();
            upstream.read_to_end(&mut answer)?;
            answer
        }
    };
    let status = String::from_utf8_lossy(&answer[..answer.len().min(12)]);
    let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let is_conditional = value("x-goog-if-generation-match").is_some();
    asked.lock().unwrap().push((format!("{method} {path}?{query}"), is_conditional, status));
    stream.write_all(&answer)
}

fn refusal(status: u16) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    head.into_bytes()
}

/// A line of a head as S3 knows it; none where it is not for it, an error where nobody knows it.
fn in_s3s_words(line: &str) -> Option<Result<String, ()>> {
    let (name, value) = line.split_once(": ")?;
    Some(match name {
        "host" | "authorization" | "connection" => return None,
        "x-goog-if-generation-match" if value == "0" => Ok("if-none-match: *\r\n".to_owned()),
        "x-goog-copy-source" => {
            let source = percent_decode_str(value).decode_utf8().unwrap();
            Ok(format!("x-amz-copy-source: /{source}\r\n"))
        }
        name if name.starts_with("x-") || name.starts_with("if-") => Err(()),
        name => Ok(format!("{name}: {value}\r\n")),
    })
}

/// Whether a token is one that the account has signed for itself.
fn token_is_right(key: &Key, token: &str) -> bool {
    let Some((text, signature)) = token.rsplit_once('.') else { return false };
    let claims = text.split_once('.').and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims: Value = claims.and_then(|claims| serde_json::from_slice(&claims).ok()).unwrap_or_default();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    claims["iss"] == ACCOUNT && key.has_signed(text, &signature)
}

/// Whether the account has signed an address: <https://cloud.google.com/storage/docs/authentication/canonical-requests>.
fn address_is_right(key: &Key, method: &str, path: &str, query: &str) -> bool {
    let pairs: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let value = |name: &str| {
        let found = pairs.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        percent_decode_str(found.unwrap_or_default()).decode_utf8().unwrap().into_owned()
    };
    let mut rest: Vec<String> = pairs
        .iter()
        .filter(|(name, _)| *name != "X-Goog-Signature")
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    rest.sort_unstable();
    let request = format!("{method}\n{path}\n{}\nhost:{HOST}\n\nhost\nUNSIGNED-PAYLOAD", rest.join("&"));
    let hash: String =
        digest(&SHA256, request.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let credential = value("X-Goog-Credential");
    let Some((account, scope)) = credential.split_once('/') else { return false };
    let text = format!("GOOG4-RSA-SHA256\n{}\n{scope}\n{hash}", value("X-Goog-Date"));
    let signature = value("X-Goog-Signature");
    let byte = |at: usize| u8::from_str_radix(signature.get(at..at + 2)?, 16).ok();
    let signature: Option<Vec<u8>> = (0..signature.len()).step_by(2).map(byte).collect();
    account == ACCOUNT && signature.is_some_and(|signature| key.has_signed(&text, &signature))
}
