//! Columns for people. Programs read JSON.

use std::fmt;

/// Rows of equally many cells, each column as wide as its widest cell. Shown without a last newline.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn with_header<const N: usize>(names: [&str; N]) -> Self {
        let mut table = Self::default();
        table.row(names.map(str::to_owned));
        table
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            let end = if index + 1 == self.rows.len() {
                ""
            } else {
                "\n"
            };
            write!(formatter, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Text that others chose, without what would move the cursor or break the line.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Table, plain};

    #[test]
    fn columns_line_up_and_lines_end_where_their_text_does() {
        let mut table = Table::with_header(["NAME", "N"]);
        table.row(["a".to_owned(), "1".to_owned()]);
        table.row(["größer".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "NAME    N\na       1\ngrößer");
    }

    #[test]
    fn an_empty_table_is_no_text() {
        assert_eq!(Table::default().to_string(), "");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb\u{fffd}c");
    }
}
