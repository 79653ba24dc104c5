//! The head of what a member is asked by its peers: refused, or the one question, which says each thing once.

#![no_main]

use baton_release::peers::IDS_MAX;
use libfuzzer_sys::fuzz_target;

// It is nobody's business but the server's: its file is compiled in.
#[path = "../../crates/baton-release/src/peers/head.rs"]
mod head;

fuzz_target!(|bytes: &[u8]| {
    match head::Head::parse(bytes) {
        Err(status) => assert!((400..500).contains(&status)),
        Ok(head) => {
            let first = format!("POST /v1/releases/{}/chunks HTTP/1.", head.release);
            let text = String::from_utf8_lossy(bytes);
            // Empty lines before it are nothing.
            assert!(text.trim_start_matches(['\r', '\n']).starts_with(&first), "{text:?}");
            assert!(head.length <= IDS_MAX * 65);
            let lengths = text.to_ascii_lowercase().matches("\ncontent-length:").count();
            assert_eq!(lengths, 1, "{text:?}");
        }
    }
});
