//! Output of programs: cut into lines, spelled as JSON, and kept. No byte is lost, whatever is written in whatever
//! portions, and nothing that is written can pass for something else.

#![no_main]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use baton_core::ids::GenerationId;
use baton_core::output::json::{Encoder, Names};
use baton_core::output::lines::{End, Lines, Piece};
use baton_core::output::ring::Ring;
use baton_core::output::time::UnixMicros;
use baton_core::output::{Stream, readable};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const NAMES: Names<'_> = Names { service: Some("web"), member: "m-1" };

fuzz_target!(|input: &[u8]| {
    let [longest, portion, room, stream @ ..] = input else { return };
    let portion = usize::from(*portion) + 1;
    let json = encode(usize::from(*longest), portion, stream);
    assert_eq!(decode(&json), stream, "the JSON tells of another stream");
    assert_eq!(
        json,
        encode(usize::from(*longest), stream.len().max(1), stream),
        "portions make a difference"
    );
    keep(usize::from(*room) * 8, portion, stream);
    assert!(!readable(stream).contains(|c: char| c.is_control() && c != '\t'));
});

/// A stream that arrives in portions of this size, as JSON.
fn encode(longest: usize, portion: usize, stream: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::of_program(NAMES, "image", GenerationId(7), Stream::Stdout);
    let (mut lines, mut json) = (Lines::new(longest), Vec::new());
    let mut encode = |piece: Piece<'_>| {
        assert!(!piece.bytes.contains(&b'\n') && piece.bytes.len() <= longest.max(4));
        assert!(piece.end != End::EndOfStream || !piece.bytes.is_empty());
        encoder.encode(UnixMicros(1), piece, &mut json);
    };
    for mut bytes in stream.chunks(portion) {
        while let Some(piece) = lines.next(&mut bytes) {
            encode(piece);
        }
    }
    lines.end().into_iter().for_each(&mut encode);
    json
}

/// The stream that JSON tells of.
fn decode(json: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for line in json.split_inclusive(|byte| *byte == b'\n') {
        let text = std::str::from_utf8(line).unwrap();
        assert!(!text.trim_end_matches('\n').contains(char::is_control), "{text:?} drives a terminal");
        let object: Value = serde_json::from_str(text).unwrap();
        assert_eq!((&object["source"], &object["member"]), (&"program".into(), &"m-1".into()));
        let line = object["line"].as_str().unwrap();
        match object.get("base64") {
            Some(exact) => stream.extend(BASE64_STANDARD.decode(exact.as_str().unwrap()).unwrap()),
            None => stream.extend(line.bytes()),
        }
        if object.get("more").is_none() && object.get("newline").is_none() {
            stream.push(b'\n');
        }
    }
    stream
}

/// What a ring keeps of two streams that are written by turns is the end of each.
fn keep(room: usize, portion: usize, stream: &[u8]) {
    let mut ring = Ring::new(room);
    let mut written = [Vec::new(), Vec::new()];
    let mut turns = Stream::ALL.into_iter().cycle();
    for (bytes, stream) in stream.chunks(portion).zip(&mut turns) {
        ring.add(GenerationId(1), stream, UnixMicros(0), bytes);
        written[usize::from(stream == Stream::Stderr)].extend_from_slice(bytes);
    }
    let mut kept = [Vec::new(), Vec::new()];
    for line in ring.tail(usize::MAX).0 {
        let kept = &mut kept[usize::from(line.stream == Stream::Stderr)];
        assert!(!line.cut || kept.is_empty(), "a line is cut in the middle of what is kept");
        kept.extend_from_slice(&line.bytes);
        kept.extend((!line.open).then_some(b'\n'));
    }
    for (written, kept) in written.iter().zip(&kept) {
        assert!(written.ends_with(kept), "something else is kept than was written");
    }
}
