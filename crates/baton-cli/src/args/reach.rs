//! Which commands ask a server: to the others it means nothing where one is.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Error};

/// The arguments that say where control is, whom to believe there, and who asks.
const REACH: [&str; 3] = ["server", "token_file", "ca"];

/// The commands that ask no server, or one that they start themselves.
const ALONE: [&[&str]; 10] = [
    &["demo"],
    &["dev"],
    &["simulate"],
    &["init"],
    &["doctor"],
    &["server"],
    &["key", "generate"],
    &["key", "list"],
    &["key", "rotate"],
    &["key", "revoke"],
];

/// Does not show these arguments in the help of commands to which they mean nothing.
pub fn hidden(mut cli: Command) -> Command {
    let reach: Vec<Arg> =
        REACH.iter().filter_map(|id| argument(&cli, id)).map(|arg| arg.hide(true)).collect();
    for path in ALONE {
        cli = at(cli, path, &reach);
    }
    cli
}

fn argument(cli: &Command, id: &str) -> Option<Arg> {
    cli.get_arguments().find(|argument| argument.get_id() == id).cloned()
}

/// The same with these arguments of its own at this command.
fn at(cli: Command, path: &[&str], own: &[Arg]) -> Command {
    match path {
        [] => cli.args(own),
        [name, rest @ ..] => cli.mut_subcommand(name, |command| at(command, rest, own)),
    }
}

/// Whether what was typed means something to the command.
///
/// # Errors
/// It says where a server is to a command that asks none.
pub fn check(cli: &mut Command, typed: &ArgMatches) -> Result<(), Error> {
    let Some(alone) = ALONE.into_iter().find(|path| is_of(typed, path)) else { return Ok(()) };
    let is_typed = |id: &&str| typed.value_source(id) == Some(ValueSource::CommandLine);
    let Some(id) = REACH.into_iter().find(is_typed) else { return Ok(()) };
    let text = format!(
        "`baton {}` asks no server that is there already: leave out --{}",
        alone.join(" "),
        id.replace('_', "-")
    );
    Err(cli.error(ErrorKind::ArgumentConflict, text))
}

/// Whether this command was typed, or one below it.
fn is_of(typed: &ArgMatches, path: &[&str]) -> bool {
    match (path, typed.subcommand()) {
        ([], _) => true,
        ([name, rest @ ..], Some((typed, below))) => *name == typed && is_of(below, rest),
        ([_, ..], None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, command, parse};

    #[test]
    fn where_a_server_is_is_refused_by_commands_that_ask_none() {
        for typed in [
            &["init", "--server", "http://a"][..],
            &["--server", "http://a", "init"],
            &["doctor", "--token-file", "x"],
            &["simulate", "--ca", "x"],
            &["dev", "--server", "http://a"],
            &["demo", "--server", "http://a"],
            &["key", "list", "--server", "http://a"],
            &["server", "--server", "http://foo:1"],
            &["server", "export", "x", "--server", "http://foo:1"],
        ] {
            let refused = parsed(typed).unwrap_err().to_string();
            assert!(refused.contains("leave out --"), "{typed:?}: {refused}");
        }
        for typed in [
            &["init", "--output", "json"][..],
            &["key", "sign", "9f3a", "--key", "x", "--server", "http://a"],
            &["status", "--server", "http://a", "--ca", "x"],
            &["audit", "--server", "http://a"],
        ] {
            assert!(parsed(typed).is_ok(), "{typed:?}");
        }
        let asks = parsed(&["status", "--server", "http://a"]).unwrap();
        assert_eq!(asks.global.server, "http://a");
    }

    fn parsed(typed: &[&str]) -> Result<Cli, clap::Error> {
        parse(["baton"].iter().chain(typed))
    }

    #[test]
    fn what_every_command_takes_stands_at_the_end_of_its_help_and_only_where_it_means_something() {
        let help = |path: &[&str]| {
            let mut cli = command();
            cli.build();
            let found = path.iter().fold(&mut cli, |cli, name| cli.find_subcommand_mut(name).unwrap());
            found.render_long_help().to_string()
        };
        for path in [&["status"][..], &["deploy"], &["members", "forget"], &["key", "sign"], &[]] {
            let help = help(path);
            let (own, global) = help.split_once("\nGlobal options:\n").unwrap_or_else(|| panic!("{help}"));
            for option in ["--server", "--token-file", "--ca", "--output"] {
                assert!(global.contains(&format!("{option} <")), "{path:?}: {help}");
                assert!(!own.contains(&format!("{option} <")), "{path:?}: {help}");
            }
            assert!(own.contains("\nOptions:\n"), "{path:?}: {help}");
        }
        for path in [&["init"][..], &["server"], &["server", "export"], &["key", "list"], &["dev"]] {
            let help = help(path);
            assert!(help.contains("--output <"), "{help}");
            for option in ["--server <", "--token-file <", "--ca <"] {
                assert!(!help.contains(option), "{path:?}: {help}");
            }
        }
    }
}
