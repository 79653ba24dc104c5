//! `baton.toml`: any text is read, or every mistake in it is told with its place; and what was read comes back from
//! the manifest of a release and from the state store.

#![no_main]

use baton_core::release::{ExternalLinks, Limits, Manifest, Provenance, Tree};
use baton_core::run::RunSettings;
use baton_core::settings::{Mistakes, Settings, parse, parse_with_command};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let text = &*String::from_utf8_lossy(text);
    match parse("baton.toml", text) {
        Ok(settings) => comes_back(&settings),
        Err(mistakes) => places_are_in(text, &mistakes),
    }
    match parse_with_command("baton.toml", text, vec!["serve".into()]) {
        Ok(settings) => assert_eq!(settings.run.command, ["serve"]),
        Err(mistakes) => places_are_in(text, &mistakes),
    }
});

fn comes_back(settings: &Settings) {
    let all = settings.flavors.values().map(|flavor| &flavor.run);
    for run in std::iter::once(&settings.run).chain(all) {
        let manifest = manifest(settings, run);
        let text = manifest.to_text();
        assert_eq!(Manifest::parse(&text).as_ref(), Ok(&manifest), "{text}");
    }
}

fn manifest(settings: &Settings, run: &RunSettings) -> Manifest {
    let provenance = Provenance { created: 0, builder: "fuzz".into(), commit: None };
    let tree = Tree::new(Limits { bytes: 0, entries: 0 }, ExternalLinks::default()).expect("an empty tree is within all limits");
    Manifest { service: settings.service.clone(), provenance, run: run.clone(), tree }
}

fn places_are_in(text: &str, mistakes: &Mistakes) {
    assert!(!mistakes.0.is_empty(), "refused without a reason");
    let lines: Vec<&str> = text.split('\n').collect();
    let mut last = (0, 0);
    for mistake in &mistakes.0 {
        let line = lines.get(mistake.line.wrapping_sub(1));
        let columns = line.map(|line| line.chars().count() + 1);
        assert!(
            columns.is_some_and(|most| (1..=most).contains(&mistake.column)),
            "{mistake} is not in the text"
        );
        assert!((mistake.line, mistake.column) >= last, "{mistake} is out of order");
        assert!(!mistake.to_string().contains(char::is_control), "{:?}", mistake.to_string());
        last = (mistake.line, mistake.column);
    }
}
