//! `{fd:NAME}` and `{port:NAME}` in a command or a variable: where a listener is found.

use alloc::string::{String, ToString};

use crate::run::Listen;

/// What stands for something that only a launch knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder<'a> {
    /// `{fd:NAME}`: the number of the descriptor that the program gets for this listener.
    Fd(&'a str),
    /// `{port:NAME}`: the port that the program is to bind for this listener.
    Port(&'a str),
}

/// A placeholder that nothing can be put in place of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No listener has this name.
    #[error("there is no listener {0:?}")]
    NoListener(String),
    /// The bootloader accepts for this listener: there is no descriptor to give.
    #[error("the listener {0:?} is proxied and has no descriptor; write {{port:{0}}}")]
    NoDescriptor(String),
}

/// The text with every placeholder replaced by `value`. Other braces stay as they are.
///
/// # Errors
/// The first that `value` gives.
pub fn expand<E>(
    text: &str,
    mut value: impl FnMut(Placeholder<'_>) -> Result<String, E>,
) -> Result<String, E> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let (before, braced) = rest.split_at(start);
        expanded.push_str(before);
        match braced.find('}').and_then(|end| Some((placeholder(&braced[1..end])?, end))) {
            Some((placeholder, end)) => {
                expanded.push_str(&value(placeholder)?);
                rest = &braced[end + 1..];
            }
            None => {
                expanded.push('{');
                rest = &braced[1..];
            }
        }
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn placeholder(inside: &str) -> Option<Placeholder<'_>> {
    match inside.split_once(':')? {
        ("fd", name) => Some(Placeholder::Fd(name)),
        ("port", name) => Some(Placeholder::Port(name)),
        (_, _) => None,
    }
}

/// Whether every placeholder in a text names a listener that can stand in its place.
pub fn check(text: &str, listeners: &[Listen]) -> Result<(), Unfit> {
    let find = |name: &str| {
        let found = listeners.iter().find(|listen| listen.name == name);
        found.ok_or_else(|| Unfit::NoListener(name.to_string()))
    };
    expand(text, |placeholder| match placeholder {
        Placeholder::Port(name) => find(name).map(|_| String::new()),
        Placeholder::Fd(name) if find(name)?.handover.passes_socket() => Ok(String::new()),
        Placeholder::Fd(name) => Err(Unfit::NoDescriptor(name.to_string())),
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Handover, Proxy};

    #[test]
    fn placeholders_are_replaced_and_other_braces_left() {
        let expanded = |text| {
            expand(text, |placeholder| match placeholder {
                Placeholder::Fd("http") => Ok("3".to_string()),
                Placeholder::Port("http") => Ok("8080".to_string()),
                Placeholder::Fd(name) | Placeholder::Port(name) => Err(name.to_string()),
            })
        };
        for (text, expected) in [
            ("--fd={fd:http}", Ok("--fd=3")),
            ("{port:http}:{fd:http}", Ok("8080:3")),
            ("{}{fd}{{fd:http}}${HOME}{x:y}{", Ok("{}{fd}{3}${HOME}{x:y}{")),
            ("{fd:admin}", Err("admin")),
            ("ü{fd:", Ok("ü{fd:")),
        ] {
            assert_eq!(expanded(text), expected.map(str::to_string).map_err(str::to_string), "{text}");
        }
    }

    #[test]
    fn a_placeholder_must_name_a_listener_that_has_it() {
        let listen = |name: &str, handover| Listen {
            name: name.into(),
            address: ([0, 0, 0, 0], 80).into(),
            handover,
            backlog: 1,
        };
        let listeners = [listen("http", Handover::Auto), listen("admin", Handover::Proxy(Proxy::default()))];
        assert_eq!(check("{fd:http} {port:http} {port:admin} {other}", &listeners), Ok(()));
        assert_eq!(check("{fd:htp}", &listeners).unwrap_err().to_string(), "there is no listener \"htp\"");
        let proxied = check("{fd:admin}", &listeners).unwrap_err().to_string();
        assert_eq!(proxied, "the listener \"admin\" is proxied and has no descriptor; write {port:admin}");
    }
}
