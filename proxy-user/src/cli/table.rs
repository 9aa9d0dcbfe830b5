//! Columns that line up.

/// Left-aligned columns, two spaces apart; no trailing blanks.
pub(super) fn table<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: [&str; N]| {
        let cells = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}  "));
        format!("  {}", cells.collect::<String>())
            .trim_end()
            .to_owned()
            + "\n"
    };
    let mut text = line(header);
    for row in rows {
        text += &line(std::array::from_fn(|column| row[column].as_str()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            ["eth0".into(), "tcx".into()],
            ["a-long-name".into(), "-".into()],
        ];
        let expected = "  device       how\n  eth0         tcx\n  a-long-name  -\n";
        assert_eq!(table(["device", "how"], &rows), expected);
    }
}
