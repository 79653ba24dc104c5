//! Places of the machine that links of a release may lead to: a release has no other way out of its directory.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::path::TreePath;

/// Most of them: an interpreter or two, and the like. With more, it is no release but a part of a machine.
pub const EXTERNAL_LINKS_MAX: usize = 64;

/// What is another thing for each process that looks at it, or no file at all.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Absolute paths that links may have as their targets, word for word: sorted, each once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExternalLinks(Vec<String>);

/// Why no link may lead there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExternalFault {
    /// It is not one spelling of one place.
    #[error("it is not an absolute path without `.`, `..`, `//`, control characters and a slash at its end")]
    Path,
    /// It lies where the kernel shows itself.
    #[error("it is in /proc, /sys or /dev, where each process finds something else")]
    Kernel,
    /// The list has it already, or one that comes after it.
    #[error("they are sorted by their bytes, each once")]
    Unsorted,
    /// The list is full.
    #[error("there are more than {EXTERNAL_LINKS_MAX}")]
    TooMany,
}

impl ExternalLinks {
    /// Those in any order, some of them perhaps twice.
    ///
    /// # Errors
    /// No link may lead to one of them, or there are too many.
    pub fn of(targets: impl IntoIterator<Item = String>) -> Result<Self, ExternalFault> {
        let mut all: Vec<String> = targets.into_iter().collect();
        all.sort_unstable();
        all.dedup();
        let mut links = Self::default();
        all.iter().try_for_each(|target| links.add(target))?;
        Ok(links)
    }

    /// Adds one that comes after all others.
    pub(super) fn add(&mut self, target: &str) -> Result<(), ExternalFault> {
        check_external(target)?;
        if self.0.last().is_some_and(|last| last.as_str() >= target) {
            return Err(ExternalFault::Unsorted);
        }
        if self.0.len() == EXTERNAL_LINKS_MAX {
            return Err(ExternalFault::TooMany);
        }
        self.0.push(target.to_string());
        Ok(())
    }

    /// Whether a link may lead there.
    pub fn allow(&self, target: &str) -> bool {
        self.0.binary_search_by(|known| known.as_str().cmp(target)).is_ok()
    }

    /// All of them, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Whether links may be allowed to lead there at all.
///
/// # Errors
/// Why not.
pub fn check_external(target: &str) -> Result<(), ExternalFault> {
    let inside = target.strip_prefix('/').ok_or(ExternalFault::Path)?;
    inside.parse::<TreePath>().map_err(|_| ExternalFault::Path)?;
    let is_in = |folder: &&str| {
        target.strip_prefix(*folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if KERNEL.iter().any(is_in) { Err(ExternalFault::Kernel) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn a_place_outside_has_one_spelling_and_is_the_same_for_everybody() {
        for (target, answer) in [
            ("/usr/bin/python3", Ok(())),
            ("/opt/my app", Ok(())),
            ("/processes", Ok(())),
            ("", Err(ExternalFault::Path)),
            ("/", Err(ExternalFault::Path)),
            ("usr/bin/python3", Err(ExternalFault::Path)),
            ("//usr", Err(ExternalFault::Path)),
            ("/usr/", Err(ExternalFault::Path)),
            ("/usr/../etc", Err(ExternalFault::Path)),
            ("/usr/./bin", Err(ExternalFault::Path)),
            ("/a\nb", Err(ExternalFault::Path)),
            ("/proc", Err(ExternalFault::Kernel)),
            ("/proc/self/fd/3", Err(ExternalFault::Kernel)),
            ("/dev/sda", Err(ExternalFault::Kernel)),
            ("/sys/kernel", Err(ExternalFault::Kernel)),
        ] {
            assert_eq!(check_external(target), answer, "{target:?}");
        }
    }

    #[test]
    fn a_list_allows_what_is_in_it_word_for_word() {
        let of = |targets: &[&str]| ExternalLinks::of(targets.iter().map(ToString::to_string));
        let links = of(&["/usr/bin/python3", "/opt/x", "/opt/x"]).unwrap();
        assert_eq!(links.iter().collect::<Vec<_>>(), ["/opt/x", "/usr/bin/python3"]);
        for (target, allowed) in [("/opt/x", true), ("/opt", false), ("/opt/x/y", false), ("/opt/x/", false)]
        {
            assert_eq!(links.allow(target), allowed, "{target}");
        }
        assert_eq!(of(&["/a", "b"]), Err(ExternalFault::Path));
        let many = (0..=EXTERNAL_LINKS_MAX).map(|n| format!("/{n}"));
        assert_eq!(ExternalLinks::of(many), Err(ExternalFault::TooMany));
    }
}
