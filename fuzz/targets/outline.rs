//! The outline of a manifest: a text is the only one of its outline, or is refused with its line; and any text is cut into
//! pieces that make it up.

#![no_main]

use baton_core::release::outline::{Outline, Outlined, cut};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let pieces: Vec<u8> = cut(text).into_iter().flat_map(|piece| text[piece].to_vec()).collect();
    assert_eq!(pieces, text);
    let text = &*String::from_utf8_lossy(text);
    match Outline::parse(text) {
        Ok(outline) => assert_eq!(outline.to_text(), text),
        Err(error) => assert!((1..=text.split('\n').count()).contains(&(error.line as usize)), "{error:?}"),
    }
    let top = Outlined::of(text).top;
    assert_eq!(Outline::parse(&top.to_text()), Ok(top));
});
