//! A pack: any bytes are refused, or every frame lies within them, is no longer than the index promises, and its chunks are
//! what their names say. The first byte says whether the rest is the pack itself, or chunks that are packed, and then
//! damaged.

#![no_main]

use baton_core::ids::ChunkId;
use baton_core::release::Chunk;
use baton_core::release::pack::FRAME_BYTES_MAX;
use baton_release::pack::{Pack, join, pack, unpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((how, rest)) = bytes.split_first() else { return };
    match how % 3 {
        0 => holds(rest),
        1 => holds(&packed(rest)),
        _ => {
            let mut damaged = packed(rest);
            let at = rest.len() * 31 % damaged.len();
            damaged[at] ^= how >> 2 | 1;
            holds(&damaged);
        }
    }
});

/// Most frames of two lines; what is left of the text is one more. Each costs a compressor and a decompressor, and an input of
/// line feeds would be a thousand of them.
const FRAMES_MAX: usize = 8;

/// A pack of the lines of a text, two to a frame.
fn packed(text: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let chunk = |line: &&[u8]| Chunk { id: ChunkId::of(line), bytes: line.len() as u32 };
    let (few, rest) = lines.split_at(lines.len().min(2 * FRAMES_MAX));
    let groups = few.chunks(2).chain((!rest.is_empty()).then_some(rest));
    let frame = |lines: &[&[u8]]| pack(lines.iter().map(chunk).collect(), &lines.concat()).expect("memory");
    let bytes = join(groups.map(frame).collect());
    let found = Pack::open(&bytes).expect("a pack that was just made");
    let mut all = Vec::new();
    for (frame, packed) in found.frames() {
        let unpacked = unpack(frame, packed).expect("what was packed");
        unpacked.chunks().for_each(|(_, content)| all.extend_from_slice(content));
    }
    assert_eq!(all, text);
    bytes
}

fn holds(bytes: &[u8]) {
    let Ok(pack) = Pack::open(bytes) else { return };
    let all: usize = pack.frames().map(|(_, packed)| packed.len()).sum();
    assert!(all < bytes.len());
    for (frame, packed) in pack.frames() {
        assert_eq!(packed.len(), frame.packed as usize);
        let Ok(unpacked) = unpack(frame, packed) else { continue };
        for (chunk, content) in unpacked.chunks() {
            assert!(content.len() <= FRAME_BYTES_MAX as usize);
            assert_eq!((chunk.id, chunk.bytes as usize), (ChunkId::of(content), content.len()));
        }
    }
}
