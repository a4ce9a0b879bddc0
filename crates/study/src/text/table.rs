//! Tables for people: Markdown whose columns stand in line, and no wider than a terminal.

use std::fmt;

/// The columns that every terminal has.
const WIDTH: usize = 80;

/// The name of a column, and the side that its cells stand on.
#[derive(Clone, Copy)]
pub(crate) enum Column<'a> {
    /// For names and words.
    Left(&'a str),
    /// For numbers.
    Right(&'a str),
}

/// A table that goes on below itself where it would be wider than a terminal: with further columns of the same rows, whose names, the
/// first columns, are repeated there.
pub(crate) struct Table<'a> {
    columns: Vec<Column<'a>>,
    /// How many columns each part has: first those that name the rows, then those that are only read side by side.
    parts: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl<'a> Table<'a> {
    /// A table whose rows are named by these columns.
    pub(crate) fn of<const N: usize>(names: [Column<'a>; N]) -> Self {
        Self { columns: names.into(), parts: vec![N], rows: Vec::new() }
    }

    /// The same with columns that stay together.
    #[must_use]
    pub(crate) fn with<const N: usize>(mut self, columns: [Column<'a>; N]) -> Self {
        self.columns.extend(columns);
        self.parts.push(N);
        self
    }

    /// Adds a row with a cell for each column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        // A name that somebody chose must not end a cell or the table.
        let row: Vec<String> =
            cells.into_iter().map(|cell| cell.replace(['\r', '\n'], " ").replace('|', "\\|")).collect();
        debug_assert_eq!(row.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(row);
    }

    /// How many letters a column needs.
    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].as_str());
        cells.chain([self.columns[column].name()]).map(|cell| cell.chars().count()).max().unwrap_or(0)
    }

    /// The columns of each table: as many parts as a terminal has room for, at least one.
    fn split(&self) -> Vec<Vec<usize>> {
        let wide = |columns: &[usize]| columns.iter().map(|&at| self.width(at) + 3).sum::<usize>() + 1 > WIDTH;
        let (names, mut next) = ((0..self.parts[0]).collect::<Vec<usize>>(), self.parts[0]);
        let mut tables = vec![names.clone()];
        for &part in &self.parts[1..] {
            let columns = next..next + part;
            next += part;
            let last = tables.last_mut().expect("there is a first one");
            let together: Vec<usize> = last.iter().copied().chain(columns.clone()).collect();
            if wide(&together) && last.len() > names.len() {
                tables.push(names.iter().copied().chain(columns).collect());
            } else {
                *last = together;
            }
        }
        tables
    }
}

impl Column<'_> {
    fn name(&self) -> &str {
        let (Self::Left(name) | Self::Right(name)) = self;
        name
    }

    fn cell(&self, text: &str, width: usize) -> String {
        match self {
            Self::Left(_) => format!(" {text:<width$} |"),
            Self::Right(_) => format!(" {text:>width$} |"),
        }
    }

    fn rule(&self, width: usize) -> String {
        match self {
            Self::Left(_) => format!("{}|", "-".repeat(width + 2)),
            Self::Right(_) => format!("{}:|", "-".repeat(width + 1)),
        }
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, columns) in self.split().iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let line = |of: &dyn Fn(usize, &Column<'_>, usize) -> String| {
                let cells = columns.iter().map(|&at| of(at, &self.columns[at], self.width(at)));
                cells.fold(String::from("|"), |line, cell| line + &cell)
            };
            writeln!(f, "{}", line(&|_, column, width| column.cell(column.name(), width)))?;
            writeln!(f, "{}", line(&|_, column, width| column.rule(width)))?;
            for row in &self.rows {
                writeln!(f, "{}", line(&|at, column, width| column.cell(&row[at], width)))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Column::*, *};

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn columns_are_as_wide_as_what_they_hold() {
        let mut table = Table::of([Left("head")]).with([Right("λ"), Right("d")]);
        table.row(row(&["L7H6", "0.5", "–"]));
        table.row(row(&["L10H12", "1", "-0.25"]));
        let told = "\
| head   |   λ |     d |
|--------|----:|------:|
| L7H6   | 0.5 |     – |
| L10H12 |   1 | -0.25 |
";
        assert_eq!(table.to_string(), told);
    }

    #[test]
    fn what_is_too_wide_goes_on_below_part_by_part() {
        let long = "x".repeat(30);
        let mut table = Table::of([Left("head")]).with([Right("a"), Right("b")]).with([Right("c")]).with([Left("d")]);
        table.row(row(&["L0H0", &long, &long, "123456", &long]));
        let told = table.to_string();
        let tables: Vec<&str> = told.split("\n\n").collect();
        let names = |table: &str| {
            table
                .lines()
                .next()
                .unwrap()
                .split('|')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(tables.iter().map(|table| names(table)).collect::<Vec<_>>(), ["head a b", "head c d"]);
        assert!(
            tables.iter().all(|table| table.lines().filter(|line| line.starts_with("| L0H0")).count() == 1),
            "{told}"
        );
        assert!(told.lines().all(|line| line.chars().count() <= WIDTH), "{told}");
        // A part that alone is too wide stays whole.
        let mut table = Table::of([Left("head")]).with([Left("a"), Left("b"), Left("c")]);
        table.row(row(&["L0H0", &long, &long, &long]));
        assert_eq!(table.to_string().lines().count(), 3);
    }
}
