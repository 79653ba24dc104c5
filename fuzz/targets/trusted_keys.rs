//! A list of trusted keys: read or refused with its line, and what is read of it is what its lines say.

#![no_main]

use baton_core::trust::TrustedKeys;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let text = &*String::from_utf8_lossy(text);
    match TrustedKeys::parse(text) {
        Ok(list) => {
            let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("key ")).collect();
            let keys: Vec<String> = list.keys().iter().map(ToString::to_string).collect();
            assert_eq!(keys, lines);
        }
        Err(error) => assert!((1..=text.split('\n').count()).contains(&(error.line as usize)), "{error:?}"),
    }
});
