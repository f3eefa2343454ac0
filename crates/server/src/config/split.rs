//! When regions are cut: the names of TiKV's file, with sizes and times as TiKV spells them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use store::split_check::{LoadLimits, SplitConfig};

use super::{Config, ConfigError, in_range};

/// What concerns the size of regions. A bound that is not given follows from the one that is: a
/// region is cut at one and a half times what its pieces hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct CoprocessorConfig {
    /// A region of so many bytes is cut, at least 1. Default `384MiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_max_size: Option<ByteSize>,
    /// ... into pieces of so many, at least 1 and at most `region-max-size`. Default `256MiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_split_size: Option<ByteSize>,
    /// A region of so many keys is cut, at least 2. Default 3,840,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_max_keys: Option<u64>,
    /// ... into pieces of so many, at least 1 and at most `region-max-keys`. Default 2,560,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_split_keys: Option<u64>,
    /// New regions that one look at a region may make, 1 to 1,024. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_split_limit: Option<u32>,
}

/// What TiKV's file has in the section of that name, as far as it is known here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RaftstoreConfig {
    /// Time between two looks at the size of a region that grows, `100ms` to `1h`. Default `10s`.
    pub split_region_check_tick_interval: Interval,
    /// Whether a region in which nothing happens for two seconds sleeps until something does: no
    /// ticks, no heartbeats. Default true.
    pub hibernate_regions: bool,
}

/// What concerns regions that are asked much. Only regions with more than one replica are cut for
/// that: another store can lead a part of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct LoadConfig {
    /// Requests a second, for ten seconds, that make a region hot; a written key is one. 0: it is
    /// never cut for that. Default 3,000.
    pub qps_threshold: u64,
    /// Bytes read and written a second that do. 0: never. Default `30MiB`.
    pub byte_threshold: ByteSize,
}

impl CoprocessorConfig {
    /// With every key set, to see which ones there are.
    pub(super) fn complete() -> Self {
        Self {
            region_max_size: Some(ByteSize(1)),
            region_split_size: Some(ByteSize(1)),
            region_max_keys: Some(1),
            region_split_keys: Some(1),
            batch_split_limit: Some(1),
        }
    }
}

impl Default for RaftstoreConfig {
    fn default() -> Self {
        let interval = Interval(SplitConfig::default().interval);
        Self { split_region_check_tick_interval: interval, hibernate_regions: true }
    }
}

impl Default for LoadConfig {
    fn default() -> Self {
        let limits = LoadLimits::default();
        Self { qps_threshold: limits.requests, byte_threshold: ByteSize(limits.bytes) }
    }
}

/// A number of bytes: `256MiB`, `256MB` (the same, as in TiKV), `1024`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A span of time: `10s`, `1m30s`, `100ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(pub Duration);

/// Factors of the units of sizes, the longer names first.
const SIZE_UNITS: [(&str, u64); 12] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1 << 10),
    ("MB", 1 << 20),
    ("GB", 1 << 30),
    ("TB", 1 << 40),
    ("B", 1),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
];

const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no size such as 256MiB");
        let text = text.trim();
        let unit = SIZE_UNITS.iter().find(|(name, _)| text.ends_with(name));
        let (number, factor) = match unit {
            Some((name, factor)) => (&text[..text.len() - name.len()], *factor),
            None => (text, 1),
        };
        let number: u64 = number.trim().parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SIZE_UNITS[..4].iter().rev();
        let unit = binary.copied().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        match unit {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no time such as 10s");
        let (mut rest, mut sum_ms) = (text.trim(), 0u64);
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let unit = TIME_UNITS.iter().find(|(name, _)| rest.starts_with(name));
            let (name, factor) = unit.ok_or_else(wrong)?;
            rest = &rest[name.len()..];
            let ms = number.checked_mul(*factor).ok_or_else(wrong)?;
            sum_ms = sum_ms.checked_add(ms).ok_or_else(wrong)?;
        }
        Ok(Self(Duration::from_millis(sum_ms)))
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms % 1000 {
            0 => write!(f, "{}s", ms / 1000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Number(u64),
            Text(String),
        }
        match Given::deserialize(deserializer)? {
            Given::Number(bytes) => Ok(Self(bytes)),
            Given::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The larger and the smaller of two bounds of which one may be missing.
fn bounds(max: Option<u64>, piece: Option<u64>, default: (u64, u64)) -> (u64, u64) {
    match (max, piece) {
        (None, None) => default,
        (Some(max), None) => (max, (max / 3 * 2).max(1)),
        (None, Some(piece)) => (piece.saturating_add(piece / 2), piece),
        (Some(max), Some(piece)) => (max, piece),
    }
}

impl Config {
    /// When regions are cut.
    pub(crate) fn split(&self) -> SplitConfig {
        let (sizes, default) = (&self.coprocessor, SplitConfig::default());
        let bytes = |size: Option<ByteSize>| size.map(|size| size.0);
        let (max_bytes, piece_bytes) = bounds(
            bytes(sizes.region_max_size),
            bytes(sizes.region_split_size),
            (default.max_bytes, default.piece_bytes),
        );
        let (max_keys, piece_keys) = bounds(
            sizes.region_max_keys,
            sizes.region_split_keys,
            (default.max_keys, default.piece_keys),
        );
        let LoadConfig { qps_threshold, byte_threshold } = self.split;
        let limits = LoadLimits {
            requests: qps_threshold,
            bytes: byte_threshold.0,
            ..LoadLimits::default()
        };
        SplitConfig {
            interval: self.raftstore.split_region_check_tick_interval.0,
            max_bytes,
            piece_bytes,
            max_keys,
            piece_keys,
            batch: sizes.batch_split_limit.map_or(default.batch, |limit| limit as usize),
            load: (limits.requests > 0 || limits.bytes > 0).then_some(limits),
        }
    }

    pub(super) fn check_split(&self) -> Result<(), ConfigError> {
        let split = self.split();
        let (sizes, second) = (&self.coprocessor, Duration::from_secs(1));
        in_range("coprocessor.region-max-keys", split.max_keys, 2..=u64::MAX, "at least 2")?;
        let rule = "1 to coprocessor.region-max-size";
        let key = "coprocessor.region-split-size";
        in_range(key, ByteSize(split.piece_bytes), ByteSize(1)..=ByteSize(split.max_bytes), rule)?;
        let rule = "1 to coprocessor.region-max-keys";
        in_range("coprocessor.region-split-keys", split.piece_keys, 1..=split.max_keys, rule)?;
        let limit = sizes.batch_split_limit.unwrap_or(1);
        in_range("coprocessor.batch-split-limit", limit, 1..=1_024, "1 to 1024")?;
        let interval = self.raftstore.split_region_check_tick_interval;
        let range = Interval(second / 10)..=Interval(3_600 * second);
        in_range("raftstore.split-region-check-tick-interval", interval, range, "100ms to 1h")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_tikv_spells_them() {
        for (text, bytes) in
            [("1MiB", 1 << 20), ("144MB", 144 << 20), ("7", 7), ("1 KiB", 1 << 10), ("3B", 3)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "MiB", "-1MiB", "1.5GiB", "99999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        for (text, ms) in [("1s", 1_000), ("500ms", 500), ("1m30s", 90_000), ("1h", 3_600_000)] {
            assert_eq!(text.parse(), Ok(Interval(Duration::from_millis(ms))), "{text}");
        }
        for text in ["", "1", "s", "1y", "99999999999999999999s"] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
        for bytes in [0, 1, 1 << 10, 3 << 20, (1 << 30) + 1] {
            assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }

    #[test]
    fn a_file_of_tikv_sets_the_bounds() {
        let text = "[coprocessor]\nregion-max-keys = 10\nregion-split-keys = 7\n\
                    region-split-size = '1MiB'\nbatch-split-limit = 100\n\
                    [raftstore]\nsplit-region-check-tick-interval = '1s'\n\
                    [split]\nqps-threshold = 0\nbyte-threshold = '0'\n";
        let (config, unknown) = Config::from_text(text).expect("valid");
        assert_eq!(unknown, Vec::<String>::new());
        config.check().expect("in range");
        let split = config.split();
        assert_eq!((split.max_keys, split.piece_keys, split.batch), (10, 7, 100));
        assert_eq!((split.max_bytes, split.piece_bytes), (3 << 19, 1 << 20));
        assert_eq!((split.interval, split.load), (Duration::from_secs(1), None));
        assert_eq!(Config::default().split(), SplitConfig::default());
    }

    #[test]
    fn bounds_that_contradict_each_other_are_named() {
        for (text, named) in [
            ("region-max-size = '1MiB'\nregion-split-size = '2MiB'", "region-split-size = 2MiB"),
            ("region-split-size = 0", "region-split-size = 0B"),
            ("region-max-keys = 1", "region-max-keys = 1"),
            ("region-max-keys = 5\nregion-split-keys = 6", "region-split-keys = 6"),
            ("batch-split-limit = 0", "batch-split-limit = 0"),
        ] {
            let (config, _) = Config::from_text(&format!("[coprocessor]\n{text}")).expect("valid");
            let error = config.check().expect_err(named);
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}
