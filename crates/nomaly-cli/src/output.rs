//! Formatting of results on stdout: numbers, tables, CSV, JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Colours; [`anstream`] drops them if stdout is not a terminal or `NO_COLOR` is set.
pub(crate) mod style {
    use anstyle::{AnsiColor, Style};

    pub(crate) const HEADING: Style = Style::new().bold();
    pub(crate) const NORMAL: Style = AnsiColor::Green.on_default();
    pub(crate) const ANOMALOUS: Style = AnsiColor::Red.on_default().bold();
    pub(crate) const UNDECIDED: Style = AnsiColor::Magenta.on_default();
    pub(crate) const FAILED: Style = AnsiColor::Yellow.on_default();
    pub(crate) const FAINT: Style = Style::new().dimmed();
    pub(crate) const ERROR: Style = AnsiColor::Red.on_default().bold();
    pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
    pub(crate) const HINT: Style = AnsiColor::Cyan.on_default().bold();
}

/// Stdout for results, without colours if they are disabled.
///
/// A reader such as `head` may close the pipe early. Further output is then discarded without an error: the command
/// completes its work with its usual exit status.
pub(crate) struct Stdout {
    out: anstream::Stdout,
    /// Whether the reader has closed the pipe.
    unread: bool,
}

impl Stdout {
    fn unless_unread(&mut self, act: impl FnOnce(&mut anstream::Stdout) -> io::Result<()>) -> io::Result<()> {
        if self.unread {
            return Ok(());
        }
        match act(&mut self.out) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.unread = true;
                Ok(())
            }
            result => result,
        }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_unread(|out| out.write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_unread(Write::flush)
    }
}

/// Stdout for results.
pub(crate) fn stdout() -> Stdout {
    Stdout { out: anstream::stdout(), unread: false }
}

/// Checks that results can be printed, before long work.
///
/// Rust ignores failed writes to a descriptor that is not open for writing, and opens `/dev/null` in place of a
/// descriptor that is closed at startup. This detects the former; the latter cannot be distinguished from an inherited
/// `/dev/null`.
pub(crate) fn check_stdout() -> anyhow::Result<()> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;

        let descriptor = io::stdout().as_fd().try_clone_to_owned();
        // An empty write reports whether writing is possible.
        let written = descriptor.map(std::fs::File::from).and_then(|mut file| file.write(&[]));
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let hint = "stdout has to be open for writing; `>/dev/null` throws results away";
                return Err(Failure::new(format!("results cannot be printed: {error}"), hint).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Prints a value as indented JSON and a line break.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(writeln!(stdout(), "{text}")?)
}

/// A number with this many significant digits, in scientific notation if it is very large or small.
pub(crate) fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let scientific = format!("{value:.*e}", digits.saturating_sub(1));
    // The exponent after rounding: 9.9996 with four digits is 10.00.
    let exponent: i32 = scientific.rsplit('e').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    if !(-5..7).contains(&exponent) {
        return scientific;
    }
    let decimals = i32::try_from(digits).unwrap_or(i32::MAX) - 1 - exponent;
    format!("{value:.*}", usize::try_from(decimals).unwrap_or(0))
}

/// A share in [0, 1] as percent with one decimal; an undefined one as a dash.
pub(crate) fn percent(share: f64) -> String {
    if share.is_nan() { "–".to_owned() } else { format!("{:.1} %", share * 100.0) }
}

/// A number of bytes with a binary unit.
pub(crate) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

/// `1 image`, `2 images`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    let ending = match count {
        1 => "",
        _ if noun.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {noun}{ending}")
}

/// `, 3 undecided`, or nothing.
pub(crate) fn and_undecided(count: usize) -> String {
    if count == 0 { String::new() } else { format!(", {count} undecided") }
}

/// `, 3 skipped`, or nothing.
pub(crate) fn and_skipped(count: usize) -> String {
    if count == 0 { String::new() } else { format!(", {count} skipped") }
}

/// A duration in seconds, or in minutes and seconds.
pub(crate) fn seconds(seconds: f64) -> String {
    if seconds < 60.0 {
        format!("{} s", significant(seconds, 3))
    } else {
        let whole = seconds.round() as u64;
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

/// Writes one record of CSV (RFC 4180, with a bare line feed).
pub(crate) fn write_csv(out: &mut impl Write, fields: &[&str]) -> io::Result<()> {
    for (place, field) in fields.iter().enumerate() {
        if place > 0 {
            out.write_all(b",")?;
        }
        if field.contains([',', '"', '\n', '\r']) {
            write!(out, "\"{}\"", field.replace('"', "\"\""))?;
        } else {
            out.write_all(field.as_bytes())?;
        }
    }
    out.write_all(b"\n")
}

/// The alignment of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table with columns as wide as their contents.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column headings.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Self {
        let columns = columns.iter().map(|(heading, align)| ((*heading).to_owned(), *align)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row with one cell per column.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.cells(cells.into());
    }

    /// As [`row`](Self::row), for a dynamic number of columns.
    pub(crate) fn cells(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Prints the table, with two spaces between columns and no trailing spaces.
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |text: &str| text.chars().count();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(column, (heading, _))| {
                self.rows.iter().map(|row| width(&row[column])).fold(width(heading), usize::max)
            })
            .collect();
        let line = |cells: Vec<&str>| {
            let padded: Vec<String> = cells
                .iter()
                .zip(&widths)
                .zip(&self.columns)
                .map(|((cell, &width), (_, align))| match align {
                    Align::Left => format!("{cell:<width$}"),
                    Align::Right => format!("{cell:>width$}"),
                })
                .collect();
            padded.join("  ").trim_end().to_owned()
        };
        let heading = line(self.columns.iter().map(|(heading, _)| heading.as_str()).collect());
        writeln!(out, "{0}{heading}{0:#}", style::HEADING)?;
        for row in &self.rows {
            writeln!(out, "{}", line(row.iter().map(String::as_str).collect()))?;
        }
        Ok(())
    }
}

/// Prints `name  value` lines with aligned values.
pub(crate) fn print_facts(out: &mut impl Write, facts: &[(&str, String)]) -> io::Result<()> {
    let width = facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, value) in facts {
        writeln!(out, "{0}{name:<width$}{0:#}  {value}", style::HEADING)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_significant_digits() {
        let cases = [
            (312.4123, "312.4"),
            (0.012_345_6, "0.01235"),
            (-2.5, "-2.500"),
            (9.9996, "10.00"),
            (123_456.0, "123456"),
            (1.5e9, "1.500e9"),
            (1e-7, "1.000e-7"),
            (0.0, "0"),
            (f64::INFINITY, "inf"),
        ];
        for (value, expected) in cases {
            assert_eq!(significant(value, 4), expected);
        }
    }

    #[test]
    fn sizes_times_and_shares_read_well() {
        assert_eq!([bytes(12), bytes(2048), bytes(5 << 20), bytes(3 << 30)], ["12 B", "2.0 KiB", "5.0 MiB", "3.0 GiB"]);
        assert_eq!([seconds(0.5), seconds(12.34), seconds(125.0)], ["0.500 s", "12.3 s", "2 min 5 s"]);
        assert_eq!([percent(0.9876), percent(f64::NAN)], ["98.8 %", "–"]);
        assert_eq!([counted(1, "image"), counted(0, "image")], ["1 image", "0 images"]);
        assert_eq!(counted(2, "class"), "2 classes");
    }

    #[test]
    fn csv_fields_survive_commas_quotes_and_line_breaks() {
        let mut out = Vec::new();
        write_csv(&mut out, &["plain", "a,b", "say \"x\"", "two\nlines", ""]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "plain,\"a,b\",\"say \"\"x\"\"\",\"two\nlines\",\n");
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("name", Align::Left), ("AUROC", Align::Right)]);
        table.row(["block1".into(), "9.5".into()]);
        table.row(["é".into(), "100.25".into()]);
        let mut out = anstream::StripStream::new(Vec::new());
        table.print(&mut out).unwrap();
        let text = String::from_utf8(out.into_inner()).unwrap();
        assert_eq!(text, "name     AUROC\nblock1     9.5\né       100.25\n");
    }
}
