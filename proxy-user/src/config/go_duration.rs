//! Times as Go writes them, and so kube-proxy's flags and files: `30s`, `1h0m0s`, `1.5s`, `0`.

use std::time::Duration;

/// Units and their nanoseconds.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("\u{b5}s", 1e3),
    ("\u{3bc}s", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];
/// Go counts nanoseconds in 63 bits: about 292 years.
const LONGEST: f64 = i64::MAX as f64;

/// Reads a time that is not negative.
///
/// # Errors
/// It is none.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a time such as 30s, 1m30s or 1h0m0s");
    if text.starts_with('-') && parse(&text[1..]).is_ok() {
        return Err(format!("'{text}' is negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let (number, behind) = split(rest, |it| it.is_ascii_digit() || it == '.');
        let (unit, behind) = split(behind, |it| !it.is_ascii_digit() && it != '.');
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let (_, factor) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        nanoseconds += number * factor;
        rest = behind;
    }
    if nanoseconds >= LONGEST {
        return Err(format!("'{text}' is too long"));
    }
    Ok(Duration::from_nanos(nanoseconds as u64))
}

/// The longest start of such characters, and what is behind.
fn split(text: &str, is_part: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|it| !is_part(it)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        let seconds = |text: &str| parse(text).map(|time| time.as_secs_f64());
        let good = [
            ("0", 0.0),
            ("0s", 0.0),
            ("30s", 30.0),
            ("1h0m0s", 3600.0),
            ("1h30m", 5400.0),
            ("1.5s", 1.5),
            (".5m", 30.0),
            ("+500ms", 0.5),
            ("15m0s", 900.0),
        ];
        for (text, wanted) in good {
            assert_eq!(seconds(text), Ok(wanted), "{text}");
        }
        let bad = [
            "", "30", "s", "1d", "1 s", "1..5s", "soon", "1h-1m", "+", ".",
        ];
        for text in bad {
            let error = parse(text).unwrap_err();
            assert!(error.contains("not a time"), "{text}: {error}");
        }
        assert_eq!(parse("-1s"), Err("'-1s' is negative".into()));
        for text in ["9999999999999999999h", "300000000h"] {
            assert_eq!(parse(text), Err(format!("'{text}' is too long")));
        }
    }
}
