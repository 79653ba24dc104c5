//! What of the bootloader's own environment a program inherits.

use alloc::string::String;
use alloc::vec::Vec;

/// Variables of the bootloader that a program inherits, each by its name, or several by a beginning and a `*`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inherited {
    /// Only these; all, when not set. Sorted, each once.
    pub only: Option<Vec<String>>,
}

/// What a service manager tells the process that it has started, and nobody else: the sockets and the watchdog are
/// the bootloader's. What is the program's own of this kind it is given by the bootloader.
const OWN: [&str; 8] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "MAINPID",
];
/// What the bootloader itself is told, credentials among it.
const OWN_PREFIX: &str = "BATON_";

/// Whether a variable is the bootloader's alone, whatever the settings say.
pub fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX) || OWN.contains(&name)
}

impl Inherited {
    /// Whether a program gets this variable of the bootloader's.
    pub fn includes(&self, name: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => pattern == name,
        };
        !is_own(name) && self.only.as_ref().is_none_or(|only| only.iter().any(matches))
    }
}

/// Whether this can stand in such a list: a name, with a `*` at its end or not.
pub fn is_pattern(text: &str) -> bool {
    let name = text.strip_suffix('*').unwrap_or(text);
    !text.is_empty() && !name.contains(['=', '\0', '*'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_bootloaders_is_never_inherited_and_the_rest_as_the_list_says() {
        let only =
            |names: &[&str]| Inherited { only: Some(names.iter().map(|name| (*name).into()).collect()) };
        let table = [
            (Inherited::default(), "PATH", true),
            (Inherited::default(), "AWS_SECRET_ACCESS_KEY", true),
            (Inherited::default(), "BATON_TOKEN", false),
            (Inherited::default(), "NOTIFY_SOCKET", false),
            (Inherited::default(), "LISTEN_ADDRESS", true),
            (only(&["PATH", "LC_*"]), "PATH", true),
            (only(&["PATH", "LC_*"]), "PATHS", false),
            (only(&["PATH", "LC_*"]), "LC_ALL", true),
            (only(&["PATH", "LC_*"]), "HOME", false),
            (only(&["*"]), "HOME", true),
            (only(&["*", "BATON_TOKEN"]), "BATON_TOKEN", false),
            (only(&[]), "PATH", false),
        ];
        for (inherited, name, expected) in table {
            assert_eq!(inherited.includes(name), expected, "{inherited:?} {name}");
        }
        for (text, good) in
            [("A", true), ("A_*", true), ("*", true), ("", false), ("A*B", false), ("A=", false)]
        {
            assert_eq!(is_pattern(text), good, "{text:?}");
        }
    }
}
