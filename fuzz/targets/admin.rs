//! The admin socket, both ends: what somebody asks, and what somebody is answered and shown.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;

// The bootloader is a program and has no library: its files are compiled in.
#[path = "../../crates/baton-boot/src/admin/request.rs"]
mod request;
#[path = "../../crates/baton-boot/src/admin/show.rs"]
mod show;

fuzz_target!(|said: &[u8]| {
    if let Some(request) = request::Request::read(said) {
        assert_eq!(request::Request::read(request.line().as_bytes()), Some(request));
        assert!(said.starts_with(request.word().as_bytes()));
    }
    if let Ok(answer) = serde_json::from_slice::<Value>(said) {
        for shown in [show::status(&answer), show::logs(&answer), show::reload(&answer)] {
            let drives = |c: char| c.is_control() && c != '\n';
            assert!(!shown.contains(drives), "{shown:?} drives a terminal");
        }
    }
});
