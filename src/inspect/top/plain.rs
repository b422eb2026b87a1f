//! The table as lines of text. Pure.

use super::model::{COLUMNS, Column, Model, cell};
use crate::inspect::look::Seen;

/// What is printed of the last column; logs need no more.
const DOING: usize = 160;

/// A table in the order of the model, its columns as wide as they need to be.
pub(super) fn table(model: &Model) -> String {
    let rows: Vec<[String; COLUMNS.len()]> = model.shown().into_iter().map(row).collect();
    let widths = COLUMNS.map(|column| column.title().len());
    let widths = rows.iter().fold(widths, |mut widths, row| {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
        widths
    });
    let titles = COLUMNS.map(|column| column.title().to_owned());
    std::iter::once(&titles)
        .chain(&rows)
        .map(|row| {
            let cells = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            line.trim_end().to_owned() + "\n"
        })
        .collect()
}

fn row(seen: &Seen) -> [String; COLUMNS.len()] {
    COLUMNS.map(|column| {
        let text = cell(seen, column);
        match (column, text.char_indices().nth(DOING)) {
            (Column::Doing, Some((end, _))) => format!("{}…", &text[..end]),
            _ if text.is_empty() => "-".to_owned(),
            _ => text,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::testing::{blocked, idle, running};

    #[test]
    fn columns_are_aligned_and_nothing_is_a_dash() {
        let mut model = Model::new();
        model.update(vec![idle(101), blocked(102), running(7)]);
        let expected = "\
PID  POOL  STATE    AGE    WAITING  REQUEST      DOING
7    -     running  -      -        -            crunch() job.php:~7 < {main} job.php:12
102  www   waiting  1.3 s  1.2 s    GET /orders  [poll, tcp 10.0.3.7:3306] < PDO->query() < App\\Repo->find() Repo.php:42 < {closure}() Page.php:9
101  www   idle     -      -        -            -
";
        assert_eq!(table(&model), expected);
    }

    #[test]
    fn a_long_cell_is_cut_between_letters() {
        let mut seen = running(1);
        seen.lines[0].name = "é".repeat(500);
        let mut model = Model::new();
        model.update(vec![seen]);
        let text = table(&model);
        assert!(text.lines().nth(1).unwrap().ends_with("é…"), "{text}");
    }
}
