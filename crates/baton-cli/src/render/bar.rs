//! A bar of members by state, and its legend.

use baton_wire::api::CountsView;
use unicode_width::UnicodeWidthStr;

use crate::ui::{Colour, Paint};

/// One sort of members: how it is drawn and called, and how many there are.
struct Sort {
    glyph: char,
    word: &'static str,
    colour: Colour,
    count: u32,
}

/// The sorts in the order in which a member goes through them, from the end.
const fn sorts(counts: &CountsView) -> [Sort; 7] {
    const fn sort(glyph: char, word: &'static str, colour: Colour, count: u32) -> Sort {
        Sort { glyph, word, colour, count }
    }
    [
        sort('#', "proven", Colour::Green, counts.proven),
        sort('+', "proving", Colour::Cyan, counts.proving),
        sort('~', "trying", Colour::Yellow, counts.trying),
        sort('x', "refused", Colour::Red, counts.refused),
        sort('=', "staged", Colour::Plain, counts.staged),
        sort('.', "behind", Colour::Plain, counts.behind),
        sort('?', "silent", Colour::Red, counts.silent),
    ]
}

/// All members.
pub fn total(counts: &CountsView) -> u32 {
    sorts(counts).iter().map(|sort| sort.count).sum()
}

/// A bar of this many cells. A sort with any member has a cell at least.
pub fn bar(counts: &CountsView, cells: usize, paint: Paint) -> String {
    let sorts = sorts(counts);
    let shown = sorts.iter().filter(|sort| sort.count > 0).count() as u64;
    let (total, free) = (u64::from(total(counts)), (cells as u64).saturating_sub(shown));
    if total == 0 {
        return " ".repeat(cells);
    }
    let (mut before, mut text) = (0, String::new());
    for sort in sorts.iter().filter(|sort| sort.count > 0) {
        let upto = before + u64::from(sort.count);
        let width = 1 + upto * free / total - before * free / total;
        text.push_str(&paint.colour(sort.colour, &sort.glyph.to_string().repeat(width as usize)));
        before = upto;
    }
    text
}

/// What the cells stand for, in lines of at most `width` cells, each ending the line.
pub fn legend(counts: &CountsView, width: usize, paint: Paint) -> String {
    let (mut text, mut used) = (String::new(), 0);
    for Sort { glyph, word, colour, count } in sorts(counts) {
        if count == 0 && word != "proven" {
            continue;
        }
        let item = format!("{glyph} {count} {word}");
        if used > 0 && used + 2 + item.width() > width {
            text.push('\n');
            used = 0;
        }
        if used > 0 {
            text.push_str("  ");
            used += 2;
        }
        used += item.width();
        text.push_str(&paint.colour(colour, &item));
    }
    text.push('\n');
    text
}

/// The counts in a sentence, every one that is not zero.
pub fn in_words(counts: &CountsView) -> String {
    let words = sorts(counts).into_iter().filter(|sort| sort.count > 0);
    let words: Vec<String> = words.map(|sort| format!("{} {}", sort.count, sort.word)).collect();
    if words.is_empty() { "no members".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sample;

    #[test]
    fn members_fill_the_bar_in_proportion() {
        let counts = sample::status("rolling-out").counts;
        assert_eq!(bar(&counts, 30, Paint::Without), "#########++~===========.....??");
        assert_eq!(
            legend(&counts, 80, Paint::Without),
            "# 82 proven  + 12 proving  ~ 3 trying  = 100 staged  . 41 behind  ? 2 silent\n"
        );
        assert_eq!(bar(&CountsView::default(), 3, Paint::Without), "   ");
        assert_eq!(legend(&CountsView::default(), 80, Paint::Without), "# 0 proven\n");
        assert_eq!(in_words(&CountsView::default()), "no members");
    }

    fn counts() -> impl Strategy<Value = CountsView> {
        prop::array::uniform7(prop_oneof![Just(0), 1..100_000u32]).prop_map(|n| CountsView {
            behind: n[0],
            staged: n[1],
            trying: n[2],
            proving: n[3],
            proven: n[4],
            refused: n[5],
            silent: n[6],
            ..CountsView::default()
        })
    }

    proptest! {
        #[test]
        fn a_bar_is_full_and_hides_nobody(counts in counts(), cells in 7usize..200) {
            let text = bar(&counts, cells, Paint::Without);
            prop_assert_eq!(text.width(), cells);
            for sort in sorts(&counts).iter().filter(|sort| sort.count > 0) {
                prop_assert!(text.contains(sort.glyph), "{} in {text}", sort.word);
            }
        }

        #[test]
        fn a_legend_fits(counts in counts()) {
            for line in legend(&counts, 80, Paint::Without).lines() {
                prop_assert!(line.width() <= 80);
            }
        }
    }
}
