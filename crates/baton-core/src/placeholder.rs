//! `{fd:NAME}`, `{port:NAME}` and `{path:NAME}` in a command or a variable: where a listener is found.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::convert::Infallible;

use crate::run::{Listen, RunSettings};

/// What stands for something that only a launch knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder<'a> {
    /// `{fd:NAME}`: the number of the descriptor that the program gets for this listener.
    Fd(&'a str),
    /// `{port:NAME}`: the port that the program is to bind for this listener.
    Port(&'a str),
    /// `{path:NAME}`: the private path that the program is to listen at, to be forwarded to.
    Path(&'a str),
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
    /// The program gets an open Unix socket: there is no port to bind.
    #[error("the listener {0:?} is a Unix socket and has no port; write {{fd:{0}}}, or handover = \"proxy\"")]
    NoPort(String),
    /// The program accepts itself: nothing is forwarded.
    #[error(
        "the listener {0:?} is not proxied, so nothing is forwarded to a path; write {{fd:{0}}}, or handover = \"proxy\""
    )]
    NoPath(String),
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
        ("path", name) => Some(Placeholder::Path(name)),
        (_, _) => None,
    }
}

/// The placeholders in a text that nothing can be put in place of, in their order.
pub fn unfit(text: &str, listeners: &[Listen]) -> Vec<Unfit> {
    let mut unfit = Vec::new();
    let Ok(_) = expand(text, |placeholder| {
        unfit.extend(why_unfit(placeholder, listeners));
        Ok::<_, Infallible>(String::new())
    });
    unfit
}

/// Why nothing can be put in place of a placeholder, if nothing can.
fn why_unfit(placeholder: Placeholder<'_>, listeners: &[Listen]) -> Option<Unfit> {
    let (Placeholder::Fd(name) | Placeholder::Port(name) | Placeholder::Path(name)) = placeholder;
    let Some(listen) = listeners.iter().find(|listen| listen.name == name) else {
        return Some(Unfit::NoListener(name.to_string()));
    };
    let passed = listen.handover.passes_socket();
    match placeholder {
        Placeholder::Fd(_) if !passed => Some(Unfit::NoDescriptor(name.to_string())),
        Placeholder::Port(_) if passed && listen.address.port().is_none() => {
            Some(Unfit::NoPort(name.to_string()))
        }
        Placeholder::Path(_) if passed => Some(Unfit::NoPath(name.to_string())),
        Placeholder::Fd(_) | Placeholder::Port(_) | Placeholder::Path(_) => None,
    }
}

/// Whether the program is forwarded to at a path for this listener: its command or a variable asks for one. Else
/// it is at a port.
pub fn asks_for_path(settings: &RunSettings, listener: &str) -> bool {
    let texts = settings.command.iter().chain(settings.env.iter().map(|(_, value)| value));
    let asks = |text: &String| {
        let found = expand(text, |placeholder| match placeholder {
            Placeholder::Path(name) if name == listener => Err(()),
            Placeholder::Path(_) | Placeholder::Port(_) | Placeholder::Fd(_) => Ok(String::new()),
        });
        found.is_err()
    };
    texts.into_iter().any(asks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Handover, MODE_DEFAULT, Proxy, SocketOptions};

    #[test]
    fn placeholders_are_replaced_and_other_braces_left() {
        let expanded = |text| {
            expand(text, |placeholder| match placeholder {
                Placeholder::Fd("http") => Ok("3".to_string()),
                Placeholder::Port("http") => Ok("8080".to_string()),
                Placeholder::Path("http") => Ok("/s".to_string()),
                Placeholder::Fd(name) | Placeholder::Port(name) | Placeholder::Path(name) => {
                    Err(name.to_string())
                }
            })
        };
        for (text, expected) in [
            ("--fd={fd:http}", Ok("--fd=3")),
            ("{port:http}:{fd:http}", Ok("8080:3")),
            ("unix:{path:http}", Ok("unix:/s")),
            ("{}{fd}{{fd:http}}${HOME}{x:y}{", Ok("{}{fd}{3}${HOME}{x:y}{")),
            ("{fd:admin}", Err("admin")),
            ("ü{fd:", Ok("ü{fd:")),
        ] {
            assert_eq!(expanded(text), expected.map(str::to_string).map_err(str::to_string), "{text}");
        }
    }

    #[test]
    fn a_placeholder_must_name_a_listener_that_has_it() {
        let listen = |name: &str, address: &str, handover| Listen {
            name: name.into(),
            address: address.parse().unwrap(),
            mode: MODE_DEFAULT,
            handover,
            backlog: 1,
            options: SocketOptions::default(),
            per_worker: false,
        };
        let proxy = Handover::Proxy(Proxy::default());
        let listeners = [
            listen("http", "0.0.0.0:80", Handover::Auto),
            listen("admin", "0.0.0.0:81", proxy),
            listen("local", "unix:/run/a", Handover::Inherit),
            listen("hidden", "unix:/run/b", proxy),
        ];
        let good =
            "{fd:http} {port:http} {port:admin} {path:admin} {fd:local} {port:hidden} {path:hidden} {other}";
        let unfit = |text| unfit(text, &listeners).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(unfit(good), [""; 0]);
        assert_eq!(unfit("{fd:a} {fd:http} {port:b}").len(), 2, "all are told of");
        for (text, wrong) in [
            ("{fd:htp}", "there is no listener \"htp\""),
            ("{fd:admin}", "the listener \"admin\" is proxied and has no descriptor; write {port:admin}"),
            (
                "{port:local}",
                "the listener \"local\" is a Unix socket and has no port; write {fd:local}, or handover = \"proxy\"",
            ),
            (
                "{path:http}",
                "the listener \"http\" is not proxied, so nothing is forwarded to a path; write {fd:http}, or \
                 handover = \"proxy\"",
            ),
        ] {
            assert_eq!(unfit(text), [wrong], "{text}");
        }
    }

    #[test]
    fn a_path_is_asked_for_in_the_command_or_in_a_variable() {
        let settings = |command: &str, value: &str| RunSettings {
            env: std::vec![("A".into(), value.into())],
            ..RunSettings::for_command(std::vec!["serve".into(), command.into()])
        };
        assert!(asks_for_path(&settings("--bind={fd:x}{path:http}", ""), "http"));
        assert!(asks_for_path(&settings("", "{path:http}"), "http"));
        assert!(!asks_for_path(&settings("{port:http} {path:admin}", "{path:admin}"), "http"));
    }
}
