//! How PD spells sizes, times and keys.

use std::fmt::Write;
use std::time::Duration;

/// A size as people read it: at most four digits and a binary unit, `1.5GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    let digits = format!("{value:.decimals$}");
    let digits = if decimals > 0 { digits.trim_end_matches('0') } else { &digits };
    format!("{}{}", digits.trim_end_matches('.'), UNITS[unit])
}

/// Bytes as the MiB that region sizes are told in: a region that holds anything has at least one.
pub(super) fn mib(bytes: u64) -> u64 {
    if bytes == 0 { 0 } else { (bytes >> 20).max(1) }
}

/// A key in upper-case hex.
pub(super) fn hex(key: &[u8]) -> String {
    let mut text = String::with_capacity(2 * key.len());
    for byte in key {
        write!(text, "{byte:02X}").expect("a string takes all that is written to it");
    }
    text
}

/// The key that [`hex`] (or a lower-case one) spells.
pub(super) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let byte = |pair: &[u8]| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8);
    text.chunks_exact(2).map(byte).collect()
}

/// A time span in whole seconds: `1h2m3s`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Milliseconds since 1970 as a date and time of the world's clock: `2026-11-22T18:50:00.123Z`.
pub(super) fn time(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let ms = ms % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day, so many days after 1970 began.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    /// From 1 March of the year 0, after which leap days fall at the ends of years, to 1970.
    const DAYS_TO_1970: u64 = 719_468;
    let days = days + DAYS_TO_1970;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    // Leaves out the leap days so far: one in four years, none in a hundred, one in four hundred.
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months since March have 31, 30, 31, 30, 31 days, and again.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_four_digits() {
        let texts = [
            (0, "0B"),
            (1, "1B"),
            (1000, "1000B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1536 << 20, "1.5GiB"),
            (100 << 30, "100GiB"),
            (10_000_000_000, "9.313GiB"),
            (123_456_789, "117.7MiB"),
            ((1 << 30) - 1, "1024MiB"),
            (u64::MAX, "16EiB"),
        ];
        for (bytes, text) in texts {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!([0, 1, 1 << 20, 5 << 20].map(mib), [0, 1, 1, 5]);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let texts = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_234_567_890_123, "2009-02-13T23:31:30.123Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (unix_ms, text) in texts {
            assert_eq!(time(unix_ms), text, "{unix_ms}");
        }
        // Every day for a thousand years comes right after the one before.
        let mut last = date(0);
        for days in 1..365_250 {
            let (year, month, day) = date(days);
            let follows = (year, month, day) == (last.0, last.1, last.2 + 1)
                || (day == 1 && (year, month) == (last.0, last.1 + 1))
                || ((month, day) == (1, 1) && (year, 12, 31) == (last.0 + 1, last.1, last.2));
            assert!(follows, "{:?} comes after {last:?}", (year, month, day));
            last = (year, month, day);
        }
    }

    #[test]
    fn spans_and_keys() {
        assert_eq!(duration(Duration::from_millis(1999)), "1s");
        assert_eq!(duration(Duration::from_secs(60)), "1m0s");
        assert_eq!(duration(Duration::from_secs(90_061)), "25h1m1s");
        assert_eq!(hex(b"\x00az\xff"), "00617AFF");
        assert_eq!(unhex(b"00617AfF").as_deref(), Some(&b"\x00az\xff"[..]));
        assert_eq!((unhex(b"0"), unhex(b"0g"), unhex(b"\xff\xff")), (None, None, None));
    }
}
