//! `[run.output]`: what becomes of what the program writes.

use super::table::Table;
use super::value;
use crate::run::{Format, Output};
use crate::units::Bytes;

/// Shorter ones would cut ordinary lines.
const LINE_MAX_LEAST: Bytes = Bytes::from_kib(1);
/// So much is held for each stream of each generation.
const LINE_MAX_MOST: Bytes = Bytes::from_kib(1024);

const FORMAT: [(&str, Format); 3] =
    [("raw", Format::Raw), ("json", Format::Json), ("inherit", Format::Inherit)];

/// Reads what the table says over `output`.
pub(super) fn read(table: &mut Table<'_, '_>, output: &mut Output) {
    table.set("format", &mut output.format, value::one_of(&FORMAT));
    table.set("line_max", &mut output.line_max, value::size(LINE_MAX_LEAST..=LINE_MAX_MOST));
    table.set("stall", &mut output.stall, value::duration);
}
