//! Taking long texts of short words apart.

use memchr::memchr;

/// What is before the first `at`, an ASCII character, and what is after it.
///
/// Manifests have hundreds of thousands of words, so that this is most of what reading one costs: [`str::split_once`] takes longer.
pub fn split_once(text: &str, at: u8) -> Option<(&str, &str)> {
    let place = memchr(at, text.as_bytes())?;
    Some((text.get(..place)?, text.get(place + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_splits_as_the_standard_library_does(text in "[a \nä]*") {
            prop_assert_eq!(split_once(&text, b' '), text.split_once(' '));
            prop_assert_eq!(split_once(&text, b'\n'), text.split_once('\n'));
        }
    }
}
