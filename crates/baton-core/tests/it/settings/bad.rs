//! Bad files: what people are told about them, word by word.

use baton_core::settings::{parse, text};

use super::SMALL;

/// All mistakes in the text, one a line.
fn mistakes(text: &str) -> String {
    match parse("baton.toml", text) {
        Ok(_) => panic!("nothing wrong with\n{text}"),
        Err(mistakes) => mistakes.to_string(),
    }
}

#[test]
fn a_bad_value_is_reported_with_its_place_and_what_to_write() {
    let mut cases = 0;
    for case in include_str!("bad_values.txt").split("\n\n") {
        let (text, expected) = case.split_once("\n=> ").unwrap();
        let report = mistakes(&format!("{text}\n{SMALL}"));
        assert_eq!(report, format!("baton.toml:{}", expected.trim_end()), "{text}");
        cases += 1;
    }
    assert!(cases > 40, "only {cases} cases found");
}

#[test]
fn a_command_that_is_no_array_is_shown_as_one() {
    let report = |command: &str| mistakes(&format!("service = \"web\"\nrun.command = {command}"));
    for (command, expected) in [
        ("\"node server.js\"", "is the text \"node server.js\"; write an array: [\"node\", \"server.js\"]"),
        ("\"a && b\"", "is the text \"a && b\"; write an array: [\"sh\", \"-c\", \"a && b\"]"),
        ("true", "is true; write an array of texts: [\"a\", \"b\"]"),
        ("[]", "is empty; write at least one element"),
        ("[\"\"]", "names no program; write the program first: [\"node\", \"server.js\"]"),
    ] {
        assert_eq!(report(command), format!("baton.toml:2:15: run.command {expected}"), "{command}");
    }
    assert_eq!(
        report("[\"a\", 1]"),
        "baton.toml:2:21: run.command[1] is the number 1; write it in quotes: \"1\""
    );
}

#[test]
fn a_bad_address_is_reported_with_the_one_to_write() {
    const FORM: &str =
        "write an address and a port, such as \"0.0.0.0:8080\" or \"[::]:8080\", or \"unix:/run/app.sock\"";
    for (address, fix) in [
        ("localhost:80", "names are not looked up: write \"127.0.0.1:80\", or \"0.0.0.0:80\" for others too"),
        ("example.org:80", "names are not looked up: write \"0.0.0.0:80\" for every address of the machine"),
        (":8080", "write \"0.0.0.0:8080\""),
        ("*:8080", "write \"0.0.0.0:8080\""),
        ("8080", "write \"0.0.0.0:8080\""),
        ("::1:80", "write \"[::1]:80\""),
        ("0.0.0.0:0", "write the port that clients use; 0 is none"),
        ("0.0.0.0", FORM),
        ("0.0.0.0:99999", FORM),
        ("/run/web.sock", "write \"unix:/run/web.sock\""),
        ("unix:web.sock", "write the whole path, such as \"unix:/run/app.sock\""),
        ("unix:/run/", "write the name of the socket too, such as \"unix:/run/app.sock\""),
        (
            "unix:@web",
            "sockets in the abstract namespace cannot be handed over: write a path, such as \"unix:/run/app.sock\"",
        ),
        (&format!("unix:/{}", "x".repeat(107)), "write a path of at most 95 bytes: this one has 108"),
        ("", FORM),
    ] {
        let text = format!("{SMALL}[[run.listen]]\nname = \"a\"\naddress = \"{address}\"");
        let expected = format!("baton.toml:5:11: run.listen.address is {address:?}; {fix}");
        assert_eq!(mistakes(&text), expected);
    }
}

#[test]
fn everything_wrong_in_a_file_is_reported_at_once_and_in_order() {
    let text = r#"[run]
command = "node server.js"
helth = 1

[[run.listen]]
address = "0.0.0.0:80"
handover = "atuo"
[[run.listen]]
name = "http"
address = "0.0.0.0:80"
[[run.listen]]
name = "http"
address = "0.0.0.0:81"
backlog = 0

[flavor.a.run]
drain = "25h"
"#;
    let expected = r#"
baton.toml:1:1: service is missing; write service = "NAME"
baton.toml:2:11: run.command is the text "node server.js"; write an array: ["node", "server.js"]
baton.toml:3:1: run.helth is not a setting; did you mean run.health?
baton.toml:5:1: run.listen.name is missing; write a name, such as name = "http"
baton.toml:7:12: run.listen.handover is "atuo"; write "auto" or "inherit" or "proxy"
baton.toml:10:11: run.listen.address is "0.0.0.0:80" for the second time; give each listener a port of its own
baton.toml:12:8: run.listen.name is "http" for the second time; give each listener a name of its own
baton.toml:14:11: run.listen.backlog is 0; write a whole number from 1 to 65535
baton.toml:17:9: flavor.a.run.drain is "25h"; write at most 24h
"#;
    assert_eq!(mistakes(text), expected.trim());
}

#[test]
fn text_that_is_not_toml_is_reported_with_the_other_mistakes_and_nothing_seems_missing() {
    let text = "[run]\ndrain = 30s\nhelth = 1\n[env]\nA = \"1\"\nA = \"2\"\nB =\n[rollout\nbake = \"1s\"\n";
    let expected = r#"
baton.toml:2:9: 30s is not in quotes; write "30s"
baton.toml:3:1: run.helth is not a setting; did you mean run.health?
baton.toml:6:1: A is here for the second time; keep one of the two
baton.toml:7:4: the value is missing; write one after the =
baton.toml:8:9: unclosed table; expected `]`
"#;
    assert_eq!(mistakes(text), expected.trim());
}

#[test]
fn an_empty_file_misses_what_is_required() {
    let expected = r#"
baton.toml:1:1: service is missing; write service = "NAME"
baton.toml:1:1: run.command is missing; write the program and its arguments: command = ["node", "server.js"]
"#;
    assert_eq!(mistakes(""), expected.trim());
}

#[test]
fn every_placeholder_that_names_nothing_is_reported() {
    let text = r#"service = "web"
run.command = ["a", "{fd:nope}", "{port:zz}"]
[env]
A = "{fd:q}"
[[flavor.x.run.listen]]
name = "q"
address = "0.0.0.0:80"
[flavor.x.env]
A = "{fd:q}{port:r}"
"#;
    let expected = r#"
baton.toml:2:15: run.command has a placeholder that cannot be filled: there is no listener "nope"
baton.toml:2:15: run.command has a placeholder that cannot be filled: there is no listener "zz"
baton.toml:4:5: env.A has a placeholder that cannot be filled: there is no listener "q"
"#;
    let report = mistakes(text);
    for line in expected.trim().lines() {
        assert!(report.contains(line), "{line} in\n{report}");
    }
    assert!(report.contains("9:5: flavor.x.env.A") && report.contains("no listener \"r\""), "{report}");
}

#[test]
fn p36_a_file_that_is_no_text_is_told_with_the_place_where_it_ceases_to_be() {
    let error =
        text("baton.toml", b"service = \"web\"\nrun.command = [\"\xc3\xbc\xff\"]\n".to_vec()).unwrap_err();
    assert_eq!(error.to_string(), "baton.toml:2:18: this is not UTF-8; write the settings as UTF-8 text");
    assert_eq!(text("baton.toml", b"a = 1".to_vec()).unwrap(), "a = 1");
}
