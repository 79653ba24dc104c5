//! What happened in the end: clients of HTTP say around it only that it happened, each of their layers once more.

use std::error::Error;

/// The innermost cause of an error.
pub fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost
}
