//! Which paths and link targets a release may have.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use memchr::{memchr_iter, memrchr};

/// Longest path in bytes: leaves a quarter of Linux' `PATH_MAX` for the directory that the release lies in.
pub const PATH_BYTES_MAX: usize = 3072;
/// Longest name of one file or directory in bytes: what Linux file systems take.
pub const NAME_BYTES_MAX: usize = 255;
/// Deepest path: far beyond real trees, and a bound for whoever walks one by recursion.
pub const DEPTH_MAX: usize = 128;

/// A path in a release: relative, normalised, without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(String);

/// Why a text is not a path that a release may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// It names nothing.
    #[error("it is empty")]
    Empty,
    /// It is not relative to the release.
    #[error("it is absolute; paths are relative to the release")]
    Absolute,
    /// It does not fit Linux' limits.
    #[error("it is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// One of its names does not fit a file system.
    #[error("a name in it is longer than {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// It has too many directories.
    #[error("it is deeper than {DEPTH_MAX} directories")]
    TooDeep,
    /// Two slashes in a row, or one at the end.
    #[error("it has an empty name: no `//` and no `/` at the end")]
    EmptyName,
    /// A `.` or `..`.
    #[error("it has a `.` or `..`; paths are written without them")]
    Dots,
    /// Terminals, logs and scripts would misread it.
    #[error("it has a control character")]
    Control,
    /// Windows tools would read it as a separator.
    #[error("it has a backslash")]
    Backslash,
}

impl TreePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory it is in; nothing for what lies at the top.
    pub fn parent(&self) -> Option<&str> {
        memrchr(b'/', self.0.as_bytes()).map(|slash| &self.0[..slash])
    }

    /// Its last part.
    pub fn name(&self) -> &str {
        memrchr(b'/', self.0.as_bytes()).map_or(&self.0, |slash| &self.0[slash + 1..])
    }

    /// How many directories it is in.
    pub fn depth(&self) -> usize {
        memchr_iter(b'/', self.0.as_bytes()).count()
    }

    /// Whether a link at this path may point to `target`, as one that stays inside the release.
    ///
    /// `..` is allowed at the start only. A `..` behind a name would go up from wherever that name leads, and
    /// if that is a link, what looks inside may be outside. So every link leads to a place inside on its own, and
    /// no chain of them leads out.
    pub fn may_link_to(&self, target: &str) -> Result<(), LinkFault> {
        if target.is_empty() {
            return Err(LinkFault::Empty);
        }
        if target.starts_with('/') {
            return Err(LinkFault::Absolute);
        }
        if target.len() > PATH_BYTES_MAX {
            return Err(LinkFault::TooLong);
        }
        if target.chars().any(|c| c.is_control() || c == '\\') {
            return Err(LinkFault::Control);
        }
        let (mut up, mut named) = (0, false);
        for part in target.split('/') {
            match part {
                "" | "." => {}
                ".." if named => return Err(LinkFault::UpAfterName),
                ".." => up += 1,
                _ => named = true,
            }
        }
        if up > self.depth() {
            return Err(LinkFault::Leaves);
        }
        Ok(())
    }
}

impl FromStr for TreePath {
    type Err = PathFault;

    fn from_str(text: &str) -> Result<Self, PathFault> {
        check(text).map(|()| Self(text.to_string()))
    }
}

impl TryFrom<String> for TreePath {
    type Error = PathFault;

    fn try_from(text: String) -> Result<Self, PathFault> {
        check(&text).map(|()| Self(text))
    }
}

fn check(text: &str) -> Result<(), PathFault> {
    if text.is_empty() {
        return Err(PathFault::Empty);
    }
    if text.starts_with('/') {
        return Err(PathFault::Absolute);
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(PathFault::TooLong);
    }
    // Nearly all are plain, and a release has tens of thousands: one look at the bytes is enough for those.
    let plain = |b: &u8| matches!(b, b' '..=b'~') && *b != b'\\';
    if !text.bytes().fold(true, |all, b| all & plain(&b)) {
        if text.chars().any(char::is_control) {
            return Err(PathFault::Control);
        }
        if text.contains('\\') {
            return Err(PathFault::Backslash);
        }
    }
    let mut start = 0;
    for (depth, end) in memchr_iter(b'/', text.as_bytes()).chain([text.len()]).enumerate() {
        let name = &text[start..end];
        start = end + 1;
        match name {
            "" => return Err(PathFault::EmptyName),
            "." | ".." => return Err(PathFault::Dots),
            _ if name.len() > NAME_BYTES_MAX => return Err(PathFault::NameTooLong),
            _ if depth > DEPTH_MAX => return Err(PathFault::TooDeep),
            _ => {}
        }
    }
    Ok(())
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Why a release may not have a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkFault {
    /// It points nowhere.
    #[error("its target is empty")]
    Empty,
    /// It points to a place of the machine, not of the release.
    #[error("its target is absolute, and push.external_links does not name it")]
    Absolute,
    /// Linux would not take it.
    #[error("its target is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// Terminals, logs and scripts would misread it.
    #[error("its target has a control character or a backslash")]
    Control,
    /// It points above the release.
    #[error("its target is outside of the release")]
    Leaves,
    /// Where it leads depends on another link.
    #[error("its target has a `..` behind a name; write it without")]
    UpAfterName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_normalised_and_printable() {
        for good in ["a", "a/b", ".env", "..a", "ä/ö ü", "a b", "-", "a:b", "x/...", "~"] {
            assert_eq!(good.parse::<TreePath>().unwrap().as_str(), good);
        }
        let deep = |names: usize| "d/".repeat(names - 1) + "f";
        assert!(deep(DEPTH_MAX + 1).parse::<TreePath>().is_ok());
        for (bad, fault) in [
            ("", PathFault::Empty),
            ("/a", PathFault::Absolute),
            ("a//b", PathFault::EmptyName),
            ("a/", PathFault::EmptyName),
            (".", PathFault::Dots),
            ("./a", PathFault::Dots),
            ("a/../b", PathFault::Dots),
            ("..", PathFault::Dots),
            ("a\0b", PathFault::Control),
            ("a\nb", PathFault::Control),
            ("a\u{1b}[2Jb", PathFault::Control),
            ("a\u{85}b", PathFault::Control),
            ("a\\b", PathFault::Backslash),
            (&"x".repeat(NAME_BYTES_MAX + 1), PathFault::NameTooLong),
            (&"xy/".repeat(PATH_BYTES_MAX), PathFault::TooLong),
            (&deep(DEPTH_MAX + 2), PathFault::TooDeep),
        ] {
            assert_eq!(bad.parse::<TreePath>(), Err(fault), "{bad:?}");
        }
    }

    #[test]
    fn a_path_knows_its_place() {
        let path: TreePath = "a/b/c".parse().unwrap();
        assert_eq!((path.parent(), path.name(), path.depth()), (Some("a/b"), "c", 2));
        let top: TreePath = "a".parse().unwrap();
        assert_eq!((top.parent(), top.name(), top.depth()), (None, "a", 0));
    }

    #[test]
    fn links_stay_inside() {
        for (link, target, answer) in [
            ("a", "b", Ok(())),
            ("a", "./b/", Ok(())),
            ("a", ".", Ok(())),
            ("bin/a", "../lib/a", Ok(())),
            ("x/y/a", "../..", Ok(())),
            ("a", "", Err(LinkFault::Empty)),
            ("a", "/etc/passwd", Err(LinkFault::Absolute)),
            ("a", "..", Err(LinkFault::Leaves)),
            ("bin/a", "../../etc", Err(LinkFault::Leaves)),
            ("bin/a", ".././../etc", Err(LinkFault::Leaves)),
            ("x/y/a", "b/../c", Err(LinkFault::UpAfterName)),
            ("a", "b\nc", Err(LinkFault::Control)),
            ("a", "b\\c", Err(LinkFault::Control)),
            ("a", &"x/".repeat(PATH_BYTES_MAX), Err(LinkFault::TooLong)),
        ] {
            let path: TreePath = link.parse().unwrap();
            assert_eq!(path.may_link_to(target), answer, "{link} -> {target:?}");
        }
    }
}
