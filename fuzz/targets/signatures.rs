//! What is signed: a text is the only one of what it says, or is refused with its line; and whatever lies in a store or on a
//! disk, nothing is believed that the one trusted key has not signed. First by a signature that can be guessed, so that what comes
//! after it is reached; then by Ed25519, which nobody guesses: only what is signed here is believed, and not a bit of another text.

#![no_main]

use baton_core::ids::{KeyId, ReleaseId, SignatureBytes};
use baton_core::trust::{
    Approval, Judge, Moment, Signature, Signed, Statement, TrustedKeys, Warrant, approvals,
};
use baton_release::signing;
use ed25519_dalek::{Signer, SigningKey};
use libfuzzer_sys::fuzz_target;

const KEY: [u8; 32] = [1; 32];

fuzz_target!(|text: &[u8]| {
    let text = &*String::from_utf8_lossy(text);
    one::<Approval>(text);
    one::<Warrant>(text);
    guessed(text);
    signed::<Approval>(text);
    signed::<Warrant>(text);
});

fn trusting(key: KeyId) -> TrustedKeys {
    let list = format!(
        "baton-trusted-keys 1\nthreshold releases 1\nthreshold deploys 1\nkey a {key} releases,deploys *\n"
    );
    TrustedKeys::parse(&list).unwrap()
}

/// What is believed where a signature can be guessed.
fn guessed(text: &str) {
    let (keys, service) = (trusting(KeyId::from_bytes(KEY)), "web".parse().unwrap());
    // A signature by the key is one of ones, over a text that has this number in it.
    let verify = |key: &KeyId, text: &[u8], signature: &SignatureBytes| {
        *key.as_bytes() == KEY && *signature.as_bytes() == [1; 64] && text.windows(4).any(|four| four == b"4711")
    };
    let judge = Judge { keys: &keys, service: &service, verify: &verify };
    for release in text.lines().filter_map(|line| line.strip_prefix("release ")?.parse::<ReleaseId>().ok()) {
        if judge.release(release, approvals(text), Moment::New(0)).is_ok() {
            assert!(text.contains("4711") && text.contains(&release.to_string()));
        }
        if judge.launch(release, text, Some(text)).is_ok() {
            unreachable!("a text is an approval or a warrant");
        }
    }
    if let Ok(warrant) = Signed::<Warrant>::parse(text) {
        let believed = judge.signatures(&warrant, Moment::New(0)).is_ok();
        assert!(!believed || (text.contains("4711") && warrant.of.service == service));
    }
}

/// What is believed by Ed25519: nothing that is there already, and what is signed here, as it was signed.
fn signed<T: Statement>(text: &str) {
    let Ok(mut found) = Signed::<T>::parse(text) else { return };
    let private = SigningKey::from_bytes(&KEY);
    let key = KeyId::from_bytes(private.verifying_key().to_bytes());
    let (keys, service) = (trusting(key), found.of.service().clone());
    let judge = Judge { keys: &keys, service: &service, verify: &signing::verify };
    assert!(judge.signatures(&found, Moment::New(0)).is_err());

    let of = found.of.to_text();
    let bytes = SignatureBytes::from_bytes(private.sign(of.as_bytes()).to_bytes());
    let wrong = |at: usize| {
        let mut other = *bytes.as_bytes();
        other[at % 64] ^= 1 << (at % 8);
        SignatureBytes::from_bytes(other)
    };
    found.add(Signature { key, bytes: wrong(text.len()) });
    assert!(judge.signatures(&found, Moment::New(0)).is_err());
    found.add(Signature { key, bytes });
    judge.signatures(&found, Moment::New(0)).expect("what was just signed");
    let mut other = of.into_bytes();
    let at = text.len() % other.len();
    other[at] ^= 1;
    assert!(!signing::verify(&key, &other, &bytes));
}

fn one<T: Statement + PartialEq + std::fmt::Debug>(text: &str) {
    match Signed::<T>::parse(text) {
        Ok(signed) => assert_eq!(signed.to_text(), text),
        Err(error) => assert!((1..=text.split('\n').count()).contains(&(error.line as usize)), "{error:?}"),
    }
}
