//! What a native library calls itself: the name in its dynamic section, by which programs ask the loader for it.

use elf::abi::{DT_NULL, DT_SONAME, DT_STRTAB, EI_NIDENT, PT_DYNAMIC, PT_LOAD};
use elf::dynamic::DynamicTable;
use elf::endian::AnyEndian;
use elf::file::{FileHeader, parse_ident};
use elf::parse::ParseAt;
use elf::segment::{ProgramHeader, SegmentTable};

/// The head of a file of either class.
const HEAD_BYTES: usize = 64;
/// Most segments that are looked at. Libraries have about ten.
const SEGMENTS_MAX: usize = 64;
/// How much of a dynamic section is looked at. Large ones have a few hundred entries of 16 bytes.
const DYNAMIC_BYTES_MAX: usize = 64 << 10;
/// Longest name, with the byte that ends it: no file has a longer one.
const NAME_BYTES_MAX: usize = 256;

/// The name; none for what is no library, has no name, or is damaged. `read` brings so many bytes from a place on, or those that there
/// are: a few small places, whatever the file says of itself.
pub fn of(read: impl Fn(u64, usize) -> Option<Vec<u8>>) -> Option<String> {
    let head = read(0, HEAD_BYTES).filter(|head| head.len() >= EI_NIDENT)?;
    let ident = parse_ident::<AnyEndian>(&head).ok()?;
    let header = FileHeader::parse_tail(ident, head.get(EI_NIDENT..)?).ok()?;
    let (endian, class) = (header.endianness, header.class);
    let bytes = ProgramHeader::size_for(class) * usize::from(header.e_phnum).min(SEGMENTS_MAX);
    let table = read(header.e_phoff, bytes)?;
    let segments: Vec<ProgramHeader> = SegmentTable::new(endian, class, &table).iter().collect();

    let dynamic = segments.iter().find(|segment| segment.p_type == PT_DYNAMIC)?;
    let bytes = usize::try_from(dynamic.p_filesz).unwrap_or(usize::MAX).min(DYNAMIC_BYTES_MAX);
    let table = read(dynamic.p_offset, bytes)?;
    let entries = DynamicTable::new(endian, class, &table);
    let value = |tag| {
        let mut entries = entries.iter().take_while(|entry| entry.d_tag != DT_NULL);
        entries.find(|entry| entry.d_tag == tag).map(|entry| entry.d_val())
    };
    let address = value(DT_STRTAB)?.checked_add(value(DT_SONAME)?)?;
    let text = read(place_of(address, &segments)?, NAME_BYTES_MAX)?;
    let end = text.iter().position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(&text[..end]).ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Where in the file is what the loader puts at this address.
fn place_of(address: u64, segments: &[ProgramHeader]) -> Option<u64> {
    let within = |segment: &&ProgramHeader| {
        segment.p_type == PT_LOAD
            && address.checked_sub(segment.p_vaddr).is_some_and(|inside| inside < segment.p_filesz)
    };
    let segment = segments.iter().find(within)?;
    segment.p_offset.checked_add(address - segment.p_vaddr)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// A library as the linker makes it.
    fn library(options: &[&str]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (source, made) = (dir.path().join("a.c"), dir.path().join("made"));
        std::fs::write(&source, "int answer(void) { return 42; }\n").unwrap();
        let done = Command::new("cc")
            .args(["-shared", "-nostdlib", "-fPIC"])
            .args(options)
            .args(["-o".as_ref(), made.as_os_str(), source.as_os_str()])
            .status();
        assert!(done.expect("this test needs a C compiler: scripts/setup").success());
        std::fs::read(made).unwrap()
    }

    fn soname(content: &[u8]) -> Option<String> {
        of(|from, bytes| {
            assert!(bytes <= 1 << 20, "little is read: {bytes}");
            let from = content.len().min(usize::try_from(from).unwrap_or(usize::MAX));
            Some(content[from..content.len().min(from + bytes)].to_vec())
        })
    }

    #[test]
    fn a_library_tells_what_it_calls_itself_and_others_tell_nothing() {
        assert_eq!(soname(&library(&["-Wl,-soname,libanswer.so.42"])).as_deref(), Some("libanswer.so.42"));
        assert_eq!(soname(&library(&[])), None);
        assert_eq!(soname(b""), None);
        assert_eq!(soname(b"INPUT(libanswer.so.42)"), None);
        assert_eq!(of(|_, _| None), None, "it cannot be read");
    }

    #[test]
    fn what_is_cut_off_or_altered_is_no_error() {
        let right = library(&["-Wl,-soname,libanswer.so.42"]);
        for end in 0..right.len().min(1024) {
            soname(&right[..end]);
        }
        // Of the head and the table of segments each byte is made the greatest there is.
        for at in 0..right.len().min(1024) {
            let mut altered = right.clone();
            altered[at] = 0xff;
            soname(&altered);
        }
    }

    proptest! {
        #[test]
        fn nothing_in_a_file_is_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 16..512), class in 1..3_u8) {
            bytes[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
            soname(&bytes);
        }
    }
}
