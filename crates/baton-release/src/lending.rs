//! What a member lends control, whose store has lost something of a release: how that travels.

/// Longest answer of a member in bytes: as long as one to another member, or how the largest release begins.
pub const LENT_BYTES_MAX: usize = 4 << 20;

/// How a release begins: what leads to its manifest, and who has vouched for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// The packed [outline](crate::manifest::pack_outline).
    pub outline: Vec<u8>,
    /// Approvals, one after the other; none where the member does not want to know.
    pub approvals: String,
}

impl Beginning {
    /// The length of the outline in a line, the outline, and the approvals.
    pub fn to_bytes(&self) -> Vec<u8> {
        let length = format!("{}\n", self.outline.len());
        [length.as_bytes(), &self.outline, self.approvals.as_bytes()].concat()
    }

    /// What was made into these bytes; none where they are anything else.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let (length, rest) = bytes.split_at(end);
        let length = std::str::from_utf8(length).ok()?.parse().ok()?;
        let (outline, approvals) = rest.get(1..)?.split_at_checked(length)?;
        let approvals = String::from_utf8(approvals.to_vec()).ok()?;
        Some(Self { outline: outline.to_vec(), approvals })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_release_begins_arrives_as_it_was_said_and_nothing_else_is_taken_for_it() {
        for (outline, approvals) in [(&b"out\nline"[..], "a\nb\n"), (b"", ""), (b"12\n", "")] {
            let beginning = Beginning { outline: outline.to_vec(), approvals: approvals.to_owned() };
            assert_eq!(Beginning::parse(&beginning.to_bytes()), Some(beginning));
        }
        for wrong in [&b""[..], b"3", b"3\n12", b"-1\n", b"x\n", b"1\nx\xff", b"99999999999999999999999\nx"] {
            assert_eq!(Beginning::parse(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }
}
