//! What a client and a server say to each other through the proxy: whatever it is, at most one answer is changed, and
//! only by the hint.

#![no_main]

use libfuzzer_sys::fuzz_target;

// The bootloader is a program and has no library: its files are compiled in.
#[path = "../../crates/baton-boot/src/proxy/exchange.rs"]
mod exchange;
#[path = "../../crates/baton-boot/src/proxy/framing.rs"]
mod framing;

const HINT: &[u8] = b"Connection: close\r\n";

fuzz_target!(|said: Vec<(bool, bool, Vec<u8>)>| {
    let (mut exchange, mut sent, mut passed) = (exchange::Exchange::default(), Vec::new(), Vec::new());
    for (by_client, leaving, bytes) in &said {
        if *by_client {
            exchange.asked(bytes);
        } else {
            let now = exchange.answered(bytes, *leaving);
            assert!(*leaving || *now == **bytes, "changed though nobody leaves");
            passed.extend_from_slice(&now);
            sent.extend_from_slice(bytes);
        }
    }
    let same = passed.iter().zip(&sent).take_while(|(one, other)| one == other).count();
    let hinted = (0..=same).any(|at| added(&passed, &sent, at) || replaced(&passed, &sent, at));
    assert!(passed == sent || hinted, "{:?} became {:?}", sent.escape_ascii(), passed.escape_ascii());
});

fn added(passed: &[u8], sent: &[u8], at: usize) -> bool {
    passed[at..].strip_prefix(HINT).is_some_and(|rest| rest == &sent[at..])
}

fn replaced(passed: &[u8], sent: &[u8], at: usize) -> bool {
    let word = sent.get(at..at + "keep-alive".len());
    word.is_some_and(|word| word.eq_ignore_ascii_case(b"keep-alive"))
        && passed[at..].strip_prefix(b"close").is_some_and(|rest| rest == &sent[at + "keep-alive".len()..])
}
