//! Columns of text.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between two columns.
const GAP: &str = "  ";

/// Rows in aligned columns under their headings, each line at most `width` cells. The last column is free text.
///
/// The cells must be safe to print.
pub fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]], width: usize) -> String {
    let mut widths = headings.map(UnicodeWidthStr::width);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let mut text = line(&headings.map(str::to_owned), &widths, width);
    for row in rows {
        text.push_str(&line(row, &widths, width));
    }
    text
}

fn line(cells: &[String], widths: &[usize], limit: usize) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        if !text.is_empty() {
            text.push_str(GAP);
        }
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', width - cell.width()));
    }
    let mut text = fit(text.trim_end(), limit);
    text.push('\n');
    text
}

/// The text, cut to `width` cells with an ellipsis where it is longer.
pub fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let within = |c: &char| {
        let left = room.checked_sub(c.width().unwrap_or(0));
        room = left.unwrap_or(0);
        left.is_some()
    };
    let mut cut: String = text.chars().take_while(within).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["web-1".to_owned(), "ready".to_owned()], ["漢字".to_owned(), String::new()]];
        assert_eq!(table(["A", "B"], &rows, 80), "A      B\nweb-1  ready\n漢字\n");
    }

    #[test]
    fn text_is_cut_where_it_does_not_fit() {
        for (text, width, fitted) in [
            ("abcd", 4, "abcd"),
            ("abcde", 4, "abc…"),
            ("漢字漢", 5, "漢字…"),
            ("漢字漢", 4, "漢…"),
            ("ab", 1, "…"),
        ] {
            assert_eq!(fit(text, width), fitted);
        }
    }
}
