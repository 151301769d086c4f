//! The values that topic configs can have, as text and back.

use std::fmt;

use crate::record::Compression;

/// Kafka's `compression.type`: what gathered batches are compressed with; `Producer` keeps what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionType {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
    Producer,
}

impl CompressionType {
    const NAMES: [(CompressionType, &'static str); 6] = [
        (CompressionType::None, "uncompressed"),
        (CompressionType::Gzip, "gzip"),
        (CompressionType::Snappy, "snappy"),
        (CompressionType::Lz4, "lz4"),
        (CompressionType::Zstd, "zstd"),
        (CompressionType::Producer, "producer"),
    ];

    /// Of Kafka's name. Clients call the codec `none` that topic configs call `uncompressed`.
    pub(super) fn named(name: &str) -> Option<CompressionType> {
        let name = if name == "none" { "uncompressed" } else { name };
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(codec, _)| *codec)
    }

    /// The codec itself; `None` where what came is kept.
    #[must_use]
    pub fn codec(self) -> Option<Compression> {
        match self {
            CompressionType::None => Some(Compression::None),
            CompressionType::Gzip => Some(Compression::Gzip),
            CompressionType::Snappy => Some(Compression::Snappy),
            CompressionType::Lz4 => Some(Compression::Lz4),
            CompressionType::Zstd => Some(Compression::Zstd),
            CompressionType::Producer => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(known, _)| *known == self).map_or("uncompressed", |(_, name)| name)
    }
}

/// `lake.format`: the table that the cold tier is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LakeFormat {
    Delta,
    None,
}

/// `message.timestamp.type`: whose clock a record's timestamp is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The leader's, when the record was appended.
    LogAppendTime,
}

/// A number from 0 to 1, exact to a millionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(u32);

impl Ratio {
    const ONE: u32 = 1_000_000;

    /// So many hundredths, 100 at most.
    #[must_use]
    pub const fn percent(hundredths: u32) -> Ratio {
        let hundredths = if hundredths > 100 { 100 } else { hundredths };
        Ratio(hundredths * (Self::ONE / 100))
    }

    /// Reads a decimal from 0 to 1.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Ratio> {
        let number: f64 = text.trim().parse().ok()?;
        (0.0..=1.0).contains(&number).then(|| Ratio((number * f64::from(Self::ONE)).round() as u32))
    }

    /// Whether `part` is at least this much of `whole`.
    #[must_use]
    pub fn is_reached(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(Self::ONE) >= u128::from(whole) * u128::from(self.0)
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With a point, as Kafka writes a double.
        write!(f, "{:?}", f64::from(self.0) / f64::from(Self::ONE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_decimal_from_0_to_1() {
        for text in ["0.5", "0.0", "1.0", "0.123456"] {
            assert_eq!(Ratio::from_text(text).map(|ratio| ratio.to_string()).as_deref(), Some(text));
        }
        for text in ["", "half", "-0.1", "1.000001", "NaN", "inf"] {
            assert_eq!(Ratio::from_text(text), None, "{text}");
        }
        assert!(Ratio::percent(50).is_reached(5, 10) && !Ratio::percent(50).is_reached(4, 10));
        assert!(Ratio::percent(0).is_reached(0, 10));
    }
}
