//! Rows of words under headings, each column as wide as its widest word.

/// A table as it grows.
pub(in crate::commands) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(in crate::commands) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    pub(in crate::commands) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a cell for each heading");
        self.rows.push(cells);
    }

    /// What to print. Columns of numbers stand to the right.
    pub(in crate::commands) fn text(&self) -> String {
        let columns = self.rows[0].len();
        let column = |at: usize| self.rows.iter().map(move |row| &row[at]);
        let width = |at| column(at).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let is_number = |cell: &String| cell.chars().all(|c| c.is_ascii_digit() || c == '-');
        let right: Vec<bool> = (0..columns).map(|at| column(at).skip(1).all(is_number)).collect();
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[at] - cell.chars().count());
                let gap = if at == 0 { "" } else { "  " };
                line += &match right[at] {
                    true => format!("{gap}{pad}{cell}"),
                    false => format!("{gap}{cell}{pad}"),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["store", "address", "n"]);
        table.row(vec!["1".into(), "a:1".into(), "10".into()]);
        table.row(vec!["12".into(), "abc:12".into(), "-".into()]);
        assert_eq!(table.text(), "store  address   n\n    1  a:1      10\n   12  abc:12    -\n");
    }
}
