//! What a program says on its notify socket: any datagram is read, and nothing in it is more than it says.

#![no_main]

use baton_core::notice::{self, Notice};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    let notices = notice::read(message);
    assert!(notices.len() <= message.split(|byte| *byte == b'\n').count());
    let mut said = Vec::new();
    for notice in &notices {
        match notice {
            Notice::Status(words) => assert!(!words.as_str().contains(char::is_control)),
            Notice::MainPid(pid) => assert!(*pid > 0),
            Notice::Ready
            | Notice::Reloading
            | Notice::Stopping
            | Notice::Alive
            | Notice::Hangs
            | Notice::Extend(_)
            | Notice::Idle => {}
        }
        said.extend(line(notice));
    }
    // Said again in the one way that the protocol has for it, it means the same.
    assert_eq!(notice::read(&said), notices);
    // What stands before and behind changes nothing.
    let more = [b"X_OTHER=1\n", message, b"\nERRNO=2"].concat();
    assert_eq!(notice::read(&more), notices);
});

fn line(notice: &Notice) -> Vec<u8> {
    match notice {
        Notice::Ready => "READY=1\n".into(),
        Notice::Reloading => "RELOADING=1\n".into(),
        Notice::Stopping => "STOPPING=1\n".into(),
        Notice::Status(words) => format!("STATUS={words}\n").into(),
        Notice::Alive => "WATCHDOG=1\n".into(),
        Notice::Hangs => "WATCHDOG=trigger\n".into(),
        // The greatest time rounds up to more microseconds than the protocol can say.
        Notice::Extend(time) => format!("EXTEND_TIMEOUT_USEC={}\n", time.0.saturating_mul(1000)).into(),
        Notice::MainPid(pid) => format!("MAINPID={pid}\n").into(),
        Notice::Idle => "X_BATON_IDLE=1\n".into(),
    }
}
