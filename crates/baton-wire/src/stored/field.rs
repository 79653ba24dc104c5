//! Single fields, read strictly.

use std::error::Error;
use std::str::FromStr;

use baton_core::units::Share;

use super::BadRecord;

/// A field that must be there.
pub(super) fn present<T>(value: Option<T>, field: &'static str) -> Result<T, BadRecord> {
    value.ok_or(BadRecord::Missing { field })
}

/// The bytes of an id that must be there.
pub(super) fn id<const N: usize>(bytes: Option<Vec<u8>>, field: &'static str) -> Result<[u8; N], BadRecord> {
    let bytes = present(bytes, field)?;
    let length = bytes.len();
    bytes.try_into().map_err(|_| invalid(field, format!("it has {length} bytes instead of {N}")))
}

/// The bytes of an id that may be absent.
pub(super) fn optional_id<const N: usize>(
    bytes: Option<Vec<u8>>,
    field: &'static str,
) -> Result<Option<[u8; N]>, BadRecord> {
    bytes.map(|bytes| id(Some(bytes), field)).transpose()
}

/// A text that must be there and stand for something.
pub(super) fn parsed<T>(text: Option<String>, field: &'static str) -> Result<T, BadRecord>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    present(text, field)?.parse().map_err(|error| invalid(field, error))
}

/// A share that must be there.
pub(super) fn share(ppm: Option<u32>, field: &'static str) -> Result<Share, BadRecord> {
    let ppm = present(ppm, field)?;
    Share::from_ppm(ppm).ok_or_else(|| invalid(field, format!("{ppm} parts per million are more than all")))
}

/// A field that is out of range.
pub(super) fn invalid(field: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> BadRecord {
    BadRecord::Invalid { field, source: source.into() }
}
