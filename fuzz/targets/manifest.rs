//! The manifest of a release: a text is the only one of its manifest, or it is refused with its line.

#![no_main]

use baton_core::release::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let text = &*String::from_utf8_lossy(text);
    match Manifest::parse(text) {
        Ok(manifest) => assert_eq!(manifest.to_text(), text),
        Err(error) => {
            let lines = text.split('\n').count();
            assert!(
                (1..=lines).contains(&(error.line as usize)),
                "line {} of {lines}: {error:?}",
                error.line
            );
        }
    }
});
