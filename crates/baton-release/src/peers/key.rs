//! Who may ask a member for what it has: the members of its service, who have a key from control.

use std::fmt;
use std::sync::Mutex;

use super::lock;

/// Bytes of a key.
pub const KEY_BYTES: usize = blake3::KEY_LEN;
/// How many keys count: the newest, and the one before, which some members still have.
const KEYS_MAX: usize = 2;

/// What the members of a service have in common. It never travels between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

impl fmt::Debug for Key {
    /// Says nothing about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// The key with these bytes.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// What only who has the key can say of a question.
    pub(super) fn mark(&self, path: &str, body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(path.as_bytes()).update(b"\n").update(body);
        hasher.finalize()
    }
}

/// The keys that a member was told, newest last.
#[derive(Debug, Default)]
pub struct Keyring(Mutex<Vec<Key>>);

impl Keyring {
    /// Takes in what control says.
    pub fn learn(&self, key: Key) {
        let mut keys = lock(&self.0);
        keys.retain(|known| *known != key);
        keys.push(key);
        let surplus = keys.len().saturating_sub(KEYS_MAX);
        keys.drain(..surplus);
    }

    /// The one to ask with.
    pub fn newest(&self) -> Option<Key> {
        lock(&self.0).last().copied()
    }

    /// Whether a question comes from a member of this service.
    pub(super) fn allows(&self, path: &str, body: &[u8], mark: &str) -> bool {
        // Hashes are compared in the same time wherever they differ.
        let said = blake3::Hash::from_hex(mark);
        said.is_ok_and(|said| lock(&self.0).iter().any(|key| key.mark(path, body) == said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_for_one_question_and_the_last_two_keys_count() {
        let keys = Keyring::default();
        let [first, second, third] = [1, 2, 3].map(|n| Key::from_bytes([n; KEY_BYTES]));
        let mark = first.mark("/a", b"x").to_string();
        assert!(!keys.allows("/a", b"x", &mark));
        keys.learn(first);
        assert!(keys.allows("/a", b"x", &mark));
        assert!(!keys.allows("/b", b"x", &mark) && !keys.allows("/a", b"y", &mark));
        assert!(!keys.allows("/a", b"x", "") && !keys.allows("/a", b"x", &"0".repeat(64)));
        keys.learn(second);
        keys.learn(second);
        assert!(keys.allows("/a", b"x", &mark));
        assert_eq!(keys.newest(), Some(second));
        keys.learn(third);
        assert!(!keys.allows("/a", b"x", &mark));
        assert_eq!(format!("{third:?}"), "Key(…)");
    }
}
