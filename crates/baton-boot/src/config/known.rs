//! The variables that begin with `BATON_`. No program inherits one, so one that nobody knows has been mistyped; and what was to
//! be a rule of this member, such as whose signatures it wants, would not be there, without a word.

use std::ffi::OsString;

use baton_core::settings::nearest;

use super::ConfigError;

/// What all of them begin with.
const PREFIX: &str = "BATON_";
/// Those of the bootloader, as its help explains them.
pub(super) const OWN: [&str; 19] = [
    "BATON_CACHE_DIR",
    "BATON_CACHE_LIMIT",
    "BATON_CA",
    "BATON_FETCH_LIMIT",
    "BATON_KEEP_RELEASES",
    "BATON_LABELS",
    "BATON_LISTEN",
    "BATON_MEMBER",
    "BATON_MIRRORS",
    "BATON_PEERS",
    "BATON_PEERS_LIMIT",
    "BATON_SERVER",
    "BATON_SERVICE",
    "BATON_STATE_DIR",
    "BATON_STATUS_SIGNAL",
    "BATON_STOP_LIMIT",
    "BATON_TOKEN",
    "BATON_TOKEN_FILE",
    "BATON_TRUSTED_KEYS",
];
/// What a program is given, which may be another bootloader; and what `baton` is told, with which it may share an environment.
const OTHERS: [&str; 13] = [
    "BATON_ALLOWED_SECRETS",
    "BATON_CRASH_STRIDE",
    "BATON_DATA",
    "BATON_GENERATION",
    "BATON_KEY",
    "BATON_KEY_FILE",
    "BATON_PROMETHEUS",
    "BATON_RELEASE",
    "BATON_SCRATCH",
    "BATON_SEAL_KEY_FILE",
    "BATON_STATE",
    "BATON_STORE",
    "BATON_WORKER",
];
/// What the tests of this project tell each other begins with this.
const OF_TESTS: &str = "BATON_TEST_";

/// Refuses a variable that was mistyped. One without a value says nothing.
pub(super) fn check(environment: &[(OsString, OsString)]) -> Result<(), ConfigError> {
    let set = environment.iter().filter(|(_, value)| !value.is_empty());
    let unknown = set.map(|(name, _)| name.to_string_lossy()).find(|name| !is_known(name));
    unknown.map_or(Ok(()), |name| {
        let rest = |name: &'static str| name.strip_prefix(PREFIX).unwrap_or(name);
        let near = nearest(name.strip_prefix(PREFIX).unwrap_or(&name), OWN.map(rest));
        let instead = match near {
            Some(near) => format!("did you mean {PREFIX}{near}?"),
            None => "leave it out, as no program is given it either, or see baton-boot --help".to_owned(),
        };
        Err(ConfigError::Unknown { name: name.into_owned(), instead })
    })
}

fn is_known(name: &str) -> bool {
    let is_listed = || OWN.contains(&name) || OTHERS.contains(&name);
    !name.starts_with(PREFIX) || is_listed() || name.starts_with(OF_TESTS) || is_of_kubernetes(name)
}

/// Whether Kubernetes gives this variable to every container beside a Service whose name begins with `baton`: `…_SERVICE_HOST`,
/// `…_SERVICE_PORT`, `…_SERVICE_PORT_NAME`, `…_PORT`, and `…_PORT_7400_TCP` with more behind it.
fn is_of_kubernetes(name: &str) -> bool {
    let is_number = |text: &str| text.split('_').next().is_some_and(|port| port.parse::<u16>().is_ok());
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.split_once("_PORT_").is_some_and(|(_, port)| is_number(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str) -> Option<String> {
        check(&[(name.into(), "x".into())]).err().map(|error| error.to_string())
    }

    #[test]
    fn p38_a_variable_that_was_mistyped_is_refused_with_what_was_meant() {
        for (name, instead) in [
            ("BATON_TRUSTED_KEY", "did you mean BATON_TRUSTED_KEYS?"),
            ("BATON_TRUST_KEYS", "did you mean BATON_TRUSTED_KEYS?"),
            ("BATON_SERVRE", "did you mean BATON_SERVER?"),
            ("BATON_TOKENFILE", "did you mean BATON_TOKEN_FILE?"),
            ("BATON_SIGNATURES_WANTED", "leave it out"),
            ("BATON_", "leave it out"),
        ] {
            let told = refused(name).unwrap();
            assert!(told.starts_with(&format!("{name} is no setting")) && told.contains(instead), "{told}");
        }
    }

    #[test]
    fn what_others_are_told_or_give_everybody_is_no_mistake() {
        let others = ["PATH", "BATONS", "BATON_TEST_STATE", "BATON_SERVICE_HOST", "BATON_SERVICE_PORT"];
        let links = [
            "BATON_SERVICE_PORT_HTTP",
            "BATON_PORT",
            "BATON_PORT_7400_TCP",
            "BATON_CONTROL_PORT_7400_TCP_ADDR",
        ];
        for name in [&OWN[..], &OTHERS, &others, &links].concat() {
            assert_eq!(refused(name), None, "{name}");
        }
        check(&[("BATON_TRUSTED_KEY".into(), "".into())]).unwrap();
    }
}
