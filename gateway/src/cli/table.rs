//! Tables in the output of commands.

use std::fmt::Write as _;
use std::ops::Range;

/// Columns as wide as what is in them.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    with_numbers(rows, 0..0)
}

/// The same with numbers in some columns, which stand to the right.
pub(super) fn with_numbers(rows: &[Vec<String>], numbers: Range<usize>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if numbers.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [vec!["GROUP".to_owned(), "LAG".to_owned()], vec!["billing".to_owned(), "7".to_owned()]];
        assert_eq!(table(&rows), "GROUP    LAG\nbilling  7\n");
        assert_eq!(with_numbers(&rows, 1..2), "GROUP    LAG\nbilling    7\n");
    }
}
