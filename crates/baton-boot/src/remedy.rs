//! What to do about a server that does not answer as control: a sentence for each reason that somebody has to remove.

use baton_release::control::Hindrance;

/// The sentence; none where nothing is to be done here, or nobody can tell what. `has_authority` says whether a file with
/// certificates was named.
pub fn remedy(hindrance: Hindrance, has_authority: bool) -> Option<&'static str> {
    match hindrance {
        Hindrance::NotBelieved if has_authority => Some(
            "the file of BATON_CA has another authority in it: put the right one there, which is ca.pem among the server's data",
        ),
        Hindrance::NotBelieved => Some(
            "nobody who is known here vouches for its certificate: give this member a token, which says whom to believe \
             (BATON_TOKEN_FILE), or name the server's authority with BATON_CA, which is ca.pem among its data",
        ),
        Hindrance::OtherName => Some(
            "its certificate is for other names: write one of these in BATON_SERVER, or add this one to it with \
             `baton server --name`",
        ),
        Hindrance::NotTls => Some("it does not speak TLS: write http:// in BATON_SERVER"),
        Hindrance::NotHttp => {
            Some("it does not speak HTTP: if it speaks TLS, write https:// in BATON_SERVER")
        }
        // It comes by itself, or what is said tells enough.
        Hindrance::NobodyThere | Hindrance::NoSuchName | Hindrance::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_to_change_is_named() {
        for (hindrance, has_authority, says) in [
            (Hindrance::NotBelieved, false, "(BATON_TOKEN_FILE)"),
            (Hindrance::NotBelieved, true, "the file of BATON_CA has another authority"),
            (Hindrance::OtherName, false, "`baton server --name`"),
            (Hindrance::NotTls, false, "write http://"),
            (Hindrance::NotHttp, false, "write https://"),
        ] {
            assert!(remedy(hindrance, has_authority).unwrap().contains(says), "{hindrance:?}");
        }
        for hindrance in [Hindrance::NobodyThere, Hindrance::NoSuchName, Hindrance::Other] {
            assert_eq!(remedy(hindrance, false), None);
        }
    }
}
