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

/// In one byte before each piece that is said: by the client, and that it should leave. The next one is its length.
const BY_CLIENT: u8 = 1;
const LEAVING: u8 = 2;

fuzz_target!(|input: &[u8]| {
    let (mut exchange, mut sent, mut passed) = (exchange::Exchange::default(), Vec::new(), Vec::new());
    let mut rest = input;
    while let [how, length, said @ ..] = rest {
        let (bytes, others) = said.split_at(usize::from(*length).min(said.len()));
        rest = others;
        if how & BY_CLIENT != 0 {
            exchange.asked(bytes);
        } else {
            let leaving = how & LEAVING != 0;
            let now = exchange.answered(bytes, leaving);
            assert!(leaving || *now == *bytes, "changed though nobody leaves");
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
