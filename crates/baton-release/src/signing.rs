//! Signatures by Ed25519: made where people and builds are, checked where programs run.

use baton_core::ids::{KeyId, ReleaseId, SignatureBytes};
use baton_core::trust::{Approval, SIGNED_BYTES_MAX, Signed, Statement};
use ed25519_dalek::{Signature, VerifyingKey};

#[cfg(feature = "push")]
pub use private::{InvalidPrivateKey, PrivateKey};

use crate::store::{Kind, StoreError};

/// Most approvals of one release that a store keeps: anybody who reaches it may bring some.
pub const APPROVALS_MAX: usize = 64;
/// Most bytes of all approvals of a release.
pub const APPROVALS_BYTES_MAX: usize = APPROVALS_MAX * SIGNED_BYTES_MAX;

/// Whether a signature is one of this text by this key. Keys and signatures that are not in their one right form, or that
/// fit to several texts, are not.
pub fn verify(key: &KeyId, text: &[u8], signature: &SignatureBytes) -> bool {
    VerifyingKey::from_bytes(key.as_bytes())
        .and_then(|key| key.verify_strict(text, &Signature::from_bytes(signature.as_bytes())))
        .is_ok()
}

/// Why a text is not what a store keeps as somebody's signature of a release.
#[derive(Debug, thiserror::Error)]
enum NotAnApproval {
    #[error("it is for release {}", .0.short())]
    OtherRelease(ReleaseId),
    #[error("it has {0} signatures instead of one")]
    Signatures(usize),
    #[error("the signature is not one by key {}", .0.short())]
    Wrong(KeyId),
}

/// The key that has signed an approval of this release, if it is one with one signature, which is right.
pub fn check(id: ReleaseId, approval: &str) -> Result<KeyId, StoreError> {
    let refused = || StoreError::new(Kind::Corrupt, format!("sign release {id}"));
    let signed = Signed::<Approval>::parse(approval).map_err(|error| refused().because(error))?;
    if signed.of.release != id {
        return Err(refused().because(NotAnApproval::OtherRelease(signed.of.release)));
    }
    match signed.signatures() {
        [one] if verify(&one.key, signed.of.to_text().as_bytes(), &one.bytes) => Ok(one.key),
        [one] => Err(refused().because(NotAnApproval::Wrong(one.key))),
        other => Err(refused().because(NotAnApproval::Signatures(other.len()))),
    }
}

/// The failure of a store that has as many approvals of a release as it keeps.
pub fn too_many(id: ReleaseId) -> StoreError {
    let why = format!("{APPROVALS_MAX} keys have signed it; remove those that nobody trusts from the store");
    StoreError::new(Kind::Denied, format!("sign release {id}")).because(why)
}

#[cfg(feature = "push")]
mod private {
    use super::{KeyId, SignatureBytes, Signed, Statement};
    use baton_core::trust;
    use ed25519_dalek::{Signer, SigningKey};

    /// The first line of a file with a private key.
    const HEAD: &str = "baton-private-key 1";

    /// A key that signs. It is never sent anywhere.
    #[derive(Clone)]
    pub struct PrivateKey(SigningKey);

    /// Why a text is not a private key. What it says is never told.
    #[derive(Debug, thiserror::Error)]
    #[error("it is not a private key: its lines are `{HEAD}` and `private` with 64 hexadecimal digits")]
    pub struct InvalidPrivateKey;

    impl PrivateKey {
        /// The key that follows from 32 random bytes.
        pub fn from_random(bytes: &[u8; 32]) -> Self {
            Self(SigningKey::from_bytes(bytes))
        }

        /// Reads a private key.
        ///
        /// # Errors
        /// It is another text.
        pub fn parse(text: &str) -> Result<Self, InvalidPrivateKey> {
            let mut lines = text.trim_end().lines();
            let head = lines.next().filter(|head| *head == HEAD);
            let digits = lines.next().and_then(|line| line.strip_prefix("private "));
            // A key's public half has the same form.
            let bytes = digits.and_then(|digits| digits.parse::<KeyId>().ok());
            match (head, bytes, lines.next()) {
                (Some(_), Some(bytes), None) => Ok(Self::from_random(bytes.as_bytes())),
                (_, _, _) => Err(InvalidPrivateKey),
            }
        }

        /// The text to keep where nobody else reads it.
        pub fn to_text(&self) -> String {
            format!("{HEAD}\nprivate {}\n", KeyId::from_bytes(self.0.to_bytes()))
        }

        /// The key as others know it.
        pub fn id(&self) -> KeyId {
            KeyId::from_bytes(self.0.verifying_key().to_bytes())
        }

        /// Signs.
        pub fn sign<T: Statement>(&self, signed: &mut Signed<T>) {
            let signature = self.0.sign(signed.of.to_text().as_bytes());
            let bytes = SignatureBytes::from_bytes(signature.to_bytes());
            signed.add(trust::Signature { key: self.id(), bytes });
        }
    }

    impl std::fmt::Debug for PrivateKey {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "PrivateKey of {}", self.id().short())
        }
    }
}

#[cfg(all(test, feature = "push"))]
mod tests {
    use super::*;
    use baton_core::release::Limits;

    /// The first three tests of RFC 8032, section 7.1.
    const RFC_8032: [(&str, &str, &[u8], &str); 3] = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            b"",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            &[0x72],
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            &[0xaf, 0x82],
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ];

    #[test]
    fn the_signatures_are_those_of_rfc_8032() {
        for (private, public, text, signature) in RFC_8032 {
            let bytes: KeyId = private.parse().unwrap();
            let key = PrivateKey::from_random(bytes.as_bytes());
            assert_eq!(key.id().to_string(), public);
            assert!(verify(&key.id(), text, &signature.parse().unwrap()));
            assert!(!verify(&key.id(), b"another text", &signature.parse().unwrap()));
        }
    }

    #[test]
    fn f99_keys_that_fit_to_any_text_are_no_keys() {
        // Points of small order, with which a signature of one text is one of others too.
        for weak in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            let forged = SignatureBytes::from_bytes(std::array::from_fn(|at| u8::from(at == 0)));
            assert!(!verify(&weak.parse().unwrap(), b"any", &forged), "{weak}");
        }
    }

    #[test]
    fn p43_a_private_key_is_read_back_and_never_told() {
        let key = PrivateKey::from_random(&[7; 32]);
        let text = key.to_text();
        assert_eq!(PrivateKey::parse(&text).unwrap().id(), key.id());
        assert_eq!(PrivateKey::parse(text.trim_end()).unwrap().id(), key.id());
        let secret = "07".repeat(32);
        assert!(text.contains(&secret) && !format!("{key:?}").contains("0707"));
        for bad in ["", "private", &text[1..], &text.replace("07", "7"), &(text.clone() + "more\n")] {
            assert!(!PrivateKey::parse(bad).unwrap_err().to_string().contains("0707"), "{bad}");
        }
    }

    #[test]
    fn what_is_signed_is_an_approval_of_that_release_only() {
        let release = ReleaseId::from_bytes([1; 32]);
        let limits = Limits { bytes: 1, entries: 1 };
        let mut signed = Signed::new(Approval { release, service: "web".parse().unwrap(), limits });
        let key = PrivateKey::from_random(&[7; 32]);
        key.sign(&mut signed);
        assert_eq!(check(release, &signed.to_text()).unwrap(), key.id());
        assert!(check(ReleaseId::from_bytes([2; 32]), &signed.to_text()).is_err());
        PrivateKey::from_random(&[8; 32]).sign(&mut signed);
        assert!(check(release, &signed.to_text()).is_err(), "one file has one signature");
    }
}
