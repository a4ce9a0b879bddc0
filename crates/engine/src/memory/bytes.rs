//! Amounts of memory as people write them.

use crate::{EngineError, Result};

/// Bytes in each unit. A number without a unit is ambiguous, so it is refused.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Reads an amount of memory such as `8GiB`, `1.5 GB` or `500MB`.
///
/// # Errors
/// If it is not a positive number with a unit.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let wrong = || EngineError::Setting {
        name: "memory",
        found: format!("'{text}'"),
        allowed: "a positive number with KB, MB, GB, TB, KiB, MiB, GiB or TiB, such as 8GiB",
    };
    let lower = text.trim().to_ascii_lowercase();
    let parsed = UNITS.iter().find_map(|(unit, size)| {
        let number = lower.strip_suffix(&unit.to_ascii_lowercase())?.trim_end();
        // Signs, exponents and names of infinity are refused.
        let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let bytes = number.parse::<f64>().ok().filter(|_| plain)? * *size as f64;
        (bytes >= 1.0 && bytes < 2f64.powi(63)).then_some(bytes as u64)
    });
    parsed.ok_or_else(wrong)
}

/// An amount of memory for people to read: `512 MiB`, `3.2 GiB`.
pub fn format_bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64 / 1024.0, "KiB");
    for next in ["MiB", "GiB", "TiB"] {
        if value < 999.5 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written() {
        for (text, bytes) in [
            ("8GiB", 8 << 30),
            ("1.5 GB", 1_500_000_000),
            ("500mb", 500_000_000),
            ("64KiB", 65_536),
            ("4096B", 4096),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for wrong in ["", "8", "GiB", "-1GB", "0GB", "1e3MB", "infGB", "nanGB", "8 gigs", "1.2.3MB", "99999999999TB"] {
            assert!(parse_bytes(wrong).unwrap_err().to_string().contains("such as 8GiB"), "{wrong}");
        }
        let written = [1 << 10, 10 << 20, (1 << 30) - 1, 3 << 29, 1000 << 30].map(format_bytes);
        assert_eq!(written, ["1.0 KiB", "10 MiB", "1.0 GiB", "1.5 GiB", "1.0 TiB"]);
    }
}
