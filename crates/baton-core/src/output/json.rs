//! A line as one JSON object on one line.
//!
//! ```json
//! {"time":"2025-01-31T23:59:59.000001Z","source":"program","service":"web","member":"web-1","release":"image","generation":7,"stream":"stdout","line":"hello"}
//! ```
//!
//! An object has nothing but printable characters, whatever the line has: what could drive a terminal, or pass
//! for the end of a line somewhere, is escaped. So no line of a program can look like one of the bootloader's,
//! whose `source` is another.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Stream;
use super::lines::{End, Piece};
use super::time::UnixMicros;
use crate::ids::GenerationId;

/// Whose line it is, as far as it is the same in every line.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// The service, where it has a name.
    pub service: Option<&'a str>,
    /// The member.
    pub member: &'a str,
}

/// Spells the lines of one stream.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// What stands between the time and the text of the line.
    origin: String,
    /// Everything before the text of the line, for the moment that was spelled last: most lines come together
    /// with others.
    head: (UnixMicros, String),
}

impl Encoder {
    /// For a stream of a program.
    pub fn of_program(names: Names<'_>, release: &str, generation: GenerationId, stream: Stream) -> Self {
        let release = text(release);
        Self::new(&format!(
            "\"source\":\"program\",{},\"release\":{release},\"generation\":{generation},\"stream\":\"{stream}\"",
            members(names)
        ))
    }

    /// For what the bootloader says itself.
    pub fn of_bootloader(names: Names<'_>) -> Self {
        Self::new(&format!("\"source\":\"baton-boot\",{}", members(names)))
    }

    fn new(origin: &str) -> Self {
        Self { origin: origin.into(), head: (UnixMicros::default(), String::new()) }
    }

    /// Adds a piece of a line that came at `time`, as an object and a line feed.
    ///
    /// What is not UTF-8 is replaced in `line`, and then `base64` has the exact bytes. `part` counts the parts of
    /// a line that was too long, `more` says that another follows, and `"newline":false` that the stream ended
    /// without a line feed.
    pub fn encode(&mut self, time: UnixMicros, piece: Piece<'_>, into: &mut Vec<u8>) {
        if self.head.0 != time || self.head.1.is_empty() {
            self.head = (time, format!("{{\"time\":\"{time}\",{},\"line\":", self.origin));
        }
        into.extend_from_slice(self.head.1.as_bytes());
        match core::str::from_utf8(piece.bytes) {
            Ok(line) => quote(line, into),
            Err(_) => {
                quote(&String::from_utf8_lossy(piece.bytes), into);
                let exact = BASE64_STANDARD.encode(piece.bytes);
                into.extend_from_slice(b",\"base64\":\"");
                into.extend_from_slice(exact.as_bytes());
                into.push(b'"');
            }
        }
        if let Some(part) = piece.part {
            into.extend_from_slice(format!(",\"part\":{part}").as_bytes());
        }
        into.extend_from_slice(match piece.end {
            End::LineFeed => b"}\n".as_slice(),
            End::NextPart => b",\"more\":true}\n",
            End::EndOfStream => b",\"newline\":false}\n",
        });
    }
}

fn members(names: Names<'_>) -> String {
    let service = names.service.map_or_else(|| "null".into(), text);
    format!("\"service\":{service},\"member\":{}", text(names.member))
}

fn text(value: &str) -> String {
    let mut quoted = Vec::new();
    quote(value, &mut quoted);
    // It was made of text.
    String::from_utf8(quoted).unwrap_or_default()
}

/// Bytes at which a character begins that may have to be escaped.
const NOTABLE: [bool; 256] = {
    let mut notable = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        // 0xC2 begins the controls from U+0080 on, 0xE2 separators and directions.
        notable[byte] = byte < 0x20 || matches!(byte as u8, b'"' | b'\\' | 0x7f | 0xc2 | 0xe2);
        byte += 1;
    }
    notable
};

/// Adds a text in quotes (RFC 8259), with everything escaped that is not meant to be seen.
fn quote(text: &str, into: &mut Vec<u8>) {
    into.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| NOTABLE[usize::from(byte)]) {
        into.extend_from_slice(&rest.as_bytes()[..at]);
        let mut characters = rest[at..].chars();
        if let Some(character) = characters.next() {
            escape(character, into);
        }
        rest = characters.as_str();
    }
    into.extend_from_slice(rest.as_bytes());
    into.push(b'"');
}

fn escape(character: char, into: &mut Vec<u8>) {
    let short = match character {
        '"' => Some(b'"'),
        '\\' => Some(b'\\'),
        '\n' => Some(b'n'),
        '\r' => Some(b'r'),
        '\t' => Some(b't'),
        _ => None,
    };
    if let Some(letter) = short {
        into.extend([b'\\', letter]);
    } else if is_hidden(character) {
        let mut code = String::new();
        // Writing to a String cannot fail. All of these are below U+10000.
        let _ = write!(code, "\\u{:04x}", u32::from(character));
        into.extend_from_slice(code.as_bytes());
    } else {
        into.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// Characters that do something instead of being seen: controls (a terminal obeys U+009B as well), the line and
/// paragraph separators, and those that turn the direction of what follows.
fn is_hidden(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::output::lines::Lines;

    const NAMES: Names<'_> = Names { service: Some("web"), member: "web-1" };

    fn program() -> Encoder {
        Encoder::of_program(NAMES, "image", GenerationId(7), Stream::Stderr)
    }

    /// All of a stream as JSON lines.
    fn encoded(longest: usize, stream: &[u8]) -> Vec<u8> {
        let (mut lines, mut encoder, mut json) = (Lines::new(longest), program(), Vec::new());
        let mut input = stream;
        while let Some(piece) = lines.next(&mut input) {
            encoder.encode(UnixMicros(1), piece, &mut json);
        }
        if let Some(piece) = lines.end() {
            encoder.encode(UnixMicros(2), piece, &mut json);
        }
        json
    }

    /// The stream that JSON lines tell of.
    fn decoded(json: &[u8]) -> Vec<u8> {
        let mut stream = Vec::new();
        for line in json.split_inclusive(|byte| *byte == b'\n') {
            let object: Value = serde_json::from_slice(line).unwrap();
            assert_eq!(object["source"], "program");
            match object.get("base64") {
                Some(exact) => {
                    let exact = BASE64_STANDARD.decode(exact.as_str().unwrap()).unwrap();
                    assert_eq!(object["line"], String::from_utf8_lossy(&exact).as_ref());
                    stream.extend(exact);
                }
                None => stream.extend(object["line"].as_str().unwrap().bytes()),
            }
            if object.get("more").is_none() && object.get("newline").is_none() {
                stream.push(b'\n');
            }
        }
        stream
    }

    #[test]
    fn an_object_reads_as_documented() {
        let head = r#"{"time":"1970-01-01T00:00:00.000001Z","source":"program","service":"web","member":"web-1","release":"image","generation":7,"stream":"stderr","line":"#;
        let piece = |bytes, part, end| Piece { bytes, part, end };
        for (piece, expected) in [
            (piece(b"hello".as_slice(), None, End::LineFeed), r#""hello"}"#),
            (piece(b"", None, End::LineFeed), r#"""}"#),
            (piece(b"a\tb\r", None, End::LineFeed), r#""a\tb\r"}"#),
            (piece(b"\x1b[31mred\x00\x7f", None, End::LineFeed), r#""\u001b[31mred\u0000\u007f"}"#),
            (
                piece("\u{9b}2J \u{2028}\u{202e} – ä".as_bytes(), None, End::LineFeed),
                r#""\u009b2J \u2028\u202e – ä"}"#,
            ),
            (piece(br#"","source":"baton-boot"#, None, End::LineFeed), r#""\",\"source\":\"baton-boot"}"#),
            (piece(b"\xffa", None, End::LineFeed), "\"\u{fffd}a\",\"base64\":\"/2E=\"}"),
            (piece(b"long", Some(1), End::NextPart), r#""long","part":1,"more":true}"#),
            (piece(b"end", Some(2), End::LineFeed), r#""end","part":2}"#),
            (piece(b"open", None, End::EndOfStream), r#""open","newline":false}"#),
        ] {
            let mut json = Vec::new();
            program().encode(UnixMicros(1), piece, &mut json);
            assert_eq!(String::from_utf8(json).unwrap(), format!("{head}{expected}\n"));
        }
    }

    #[test]
    fn p22_a_line_of_the_bootloader_has_a_source_that_no_program_can_write() {
        let mut own = Vec::new();
        let said = Piece { bytes: b"generation 2 launched", part: None, end: End::LineFeed };
        let nameless = Names { service: None, member: "\"\n" };
        Encoder::of_bootloader(nameless).encode(UnixMicros(0), said, &mut own);
        let object: Value = serde_json::from_slice(&own).unwrap();
        assert_eq!((&object["source"], &object["service"]), (&Value::from("baton-boot"), &Value::Null));
        assert_eq!(object["member"], "\"\n");
        // A program that writes that very line only quotes it.
        let forged: Value = serde_json::from_slice(&encoded(4096, &own)).unwrap();
        assert_eq!(forged["source"], "program");
        assert_eq!(forged["line"].as_str().unwrap().as_bytes(), own.trim_ascii_end());
    }

    fn any_stream() -> impl Strategy<Value = Vec<u8>> {
        let hostile = vec![
            "\"",
            "\\",
            "\n",
            "\r",
            "\u{1b}[2J",
            "\0",
            "\u{7f}",
            "\u{85}",
            "\u{9b}",
            "\u{2029}",
            "\u{2066}",
            "ä",
            "\u{10348}",
            "{\"source\":\"baton-boot\"}",
            "baton-boot: ",
        ];
        let hostile = prop::collection::vec(prop::sample::select(hostile), 0..30);
        prop_oneof![any::<Vec<u8>>(), hostile.prop_map(|parts| parts.concat().into_bytes())]
    }

    proptest! {
        #[test]
        fn f87_any_stream_is_read_back_from_its_json(stream in any_stream(), longest in 0usize..40) {
            prop_assert_eq!(decoded(&encoded(longest, &stream)), stream);
        }

        #[test]
        fn p44_json_lines_have_nothing_that_a_terminal_obeys(stream in any_stream(), longest in 0usize..40) {
            let json = String::from_utf8(encoded(longest, &stream)).unwrap();
            prop_assert!(!json.chars().any(|c| c != '\n' && is_hidden(c)), "{:?}", json);
            let is_object = |line: &str| line.starts_with("{\"time\":\"1970-") && line.ends_with('}');
            prop_assert!(json.lines().all(is_object), "{:?}", json);
        }
    }
}
