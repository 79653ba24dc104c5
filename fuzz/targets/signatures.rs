//! What is signed: a text is the only one of what it says, or is refused with its line; and whatever lies in a store or on a
//! disk, nothing is believed that the one trusted key has not signed.

#![no_main]

use baton_core::ids::{KeyId, ReleaseId, SignatureBytes};
use baton_core::trust::{
    Approval, Judge, Moment, Signed, Statement, TrustedKeys, Warrant, approvals,
};
use libfuzzer_sys::fuzz_target;

const KEY: [u8; 32] = [1; 32];

fuzz_target!(|text: &[u8]| {
    let text = &*String::from_utf8_lossy(text);
    one::<Approval>(text);
    one::<Warrant>(text);
    let list = format!(
        "baton-trusted-keys 1\nthreshold releases 1\nthreshold deploys 1\nkey a {} releases,deploys *\n",
        KeyId::from_bytes(KEY)
    );
    let (keys, service) = (TrustedKeys::parse(&list).unwrap(), "web".parse().unwrap());
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
});

fn one<T: Statement + PartialEq + std::fmt::Debug>(text: &str) {
    match Signed::<T>::parse(text) {
        Ok(signed) => assert_eq!(signed.to_text(), text),
        Err(error) => assert!((1..=text.split('\n').count()).contains(&(error.line as usize)), "{error:?}"),
    }
}
