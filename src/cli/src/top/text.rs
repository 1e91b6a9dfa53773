//! What is written into the cells of a screen: safe, short, and as wide as it says.

use std::time::Duration;

use ratatui::text::Span;

use crate::table::plain;

/// What stands where nothing is known.
pub(super) const UNKNOWN: &str = "-";
const ELLIPSIS: &str = "…";

/// Text that others chose, on one line and in the order in which it is written: neither control characters nor
/// those that turn the direction of what follows.
pub(super) fn shown(text: &str) -> String {
    const REPLACEMENT: char = '\u{fffd}';
    let turns = |character: char| {
        matches!(character,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let plain = plain(text);
    if plain.contains(turns) {
        return plain.replace(turns, &REPLACEMENT.to_string());
    }
    plain
}

/// How many columns a text takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The text in exactly this many columns: cut with an ellipsis, or filled with blanks.
pub(super) fn fit(text: &str, columns: usize) -> String {
    let mut fitted = cut(text, columns);
    let used = width(&fitted);
    fitted.extend(std::iter::repeat_n(' ', columns.saturating_sub(used)));
    fitted
}

/// As [`fit`], at the right.
pub(super) fn fit_right(text: &str, columns: usize) -> String {
    let fitted = cut(text, columns);
    let blanks = columns.saturating_sub(width(&fitted));
    format!("{}{fitted}", " ".repeat(blanks))
}

/// The text in at most this many columns. A wide character is never cut in two.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(width(ELLIPSIS));
    let (mut fitted, mut used) = (String::new(), 0);
    for grapheme in Span::raw(text).styled_graphemes(ratatui::style::Style::default()) {
        let wide = width(grapheme.symbol);
        if used + wide > room {
            break;
        }
        used += wide;
        fitted.push_str(grapheme.symbol);
    }
    if columns > 0 {
        fitted.push_str(ELLIPSIS);
    }
    fitted
}

/// A time in at most seven characters, in its two largest units, rounded down.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m{:02}s", seconds % 60),
        3_600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        86_400..8_640_000 => format!("{days}d{:02}h", hours % 24),
        _ => format!("{days}d"),
    }
}

/// A number of things, in words.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{number} {many}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{count, cut, fit, fit_right, shown, span, width};

    #[test]
    fn text_of_others_neither_moves_the_cursor_nor_turns_around() {
        assert_eq!(shown("a\u{1b}[2Jb\r\n"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
        assert_eq!(shown("pay\u{202e}fdp.exe"), "pay\u{fffd}fdp.exe");
        assert_eq!(shown("größer 世界 👩‍💻"), "größer 世界 👩‍💻");
    }

    #[test]
    fn text_takes_the_columns_that_it_is_given() {
        for (text, columns, expected) in [
            ("abc", 5, "abc  "),
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
            ("", 2, "  "),
            ("世界世", 5, "世界…"),
            // The second character would be cut in two: a blank stands for its first half.
            ("世界世", 4, "世… "),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
        ] {
            assert_eq!(fit(text, columns), expected, "{text} in {columns}");
            assert_eq!(width(&fit(text, columns)), columns, "{text} in {columns}");
        }
        assert_eq!(fit_right("12", 4), "  12");
        assert_eq!(fit_right("12345", 4), "123…");
    }

    #[test]
    fn a_cut_text_is_never_wider_than_asked() {
        let text = "a世b\u{200d}👩‍💻é\u{301}🇩🇪z";
        for columns in 0..20 {
            assert!(width(&cut(text, columns)) <= columns, "{columns}");
        }
    }

    #[test]
    fn times_have_their_two_largest_units() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3_599, "59m59s"),
            (3_600, "1h00m"),
            (86_399, "23h59m"),
            (86_400, "1d00h"),
            (8_639_999, "99d23h"),
            (8_640_000, "100d"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
        assert!(span(Duration::MAX).ends_with('d'), "no wrap, no panic");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(count(1, "lease", "leases"), "1 lease");
        assert_eq!(count(0, "lease", "leases"), "0 leases");
    }
}
