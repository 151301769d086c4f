//! Units that cross module borders: offsets, epochs and times, so that none travels as a bare integer.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

unit!(
    /// The position of a record in its partition; the first record ever has offset 0.
    Offset, i64
);
unit!(
    /// A leader epoch: raised at each change of leader, written into every batch (KIP-101).
    Epoch, i32
);
unit!(
    /// The id of a node of the cluster (Kafka's `node.id`), 0 or more.
    NodeId, i32
);
unit!(
    /// Which change of a partition's state this is, the first being 0 (KIP-497): raised by every one of them, also
    /// where the leader stays.
    PartitionEpoch, i32
);
unit!(
    /// Which start of a node's process this is: higher at each registration (Kafka's broker epoch).
    Incarnation, u64
);
unit!(
    /// How many records the cluster's metadata was made of: of two states of one cluster, the higher is the later.
    MetadataVersion, u64
);
unit!(
    /// What all nodes of a cluster understand of each other (Kafka's `metadata.version`): finalised as one for the
    /// cluster, raised when every node supports the next, never lowered.
    Level, u16
);
unit!(
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Millis, i64
);

impl Offset {
    pub const ZERO: Offset = Offset(0);

    /// The largest that is believed from a file: no log comes near it, and what is added to it does not overflow.
    const LARGEST: i64 = 1 << 62;

    /// An offset as our files hold it; `None` when it is none that a log can have reached.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Offset> {
        text.parse().ok().filter(|offset| (0..=Self::LARGEST).contains(offset)).map(Offset)
    }

    /// The offset `count` records later.
    #[must_use]
    pub fn plus(self, count: i64) -> Offset {
        Offset(self.0 + count)
    }

    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Offset {
        self.plus(1)
    }
}

impl Epoch {
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }
}

impl PartitionEpoch {
    #[must_use]
    pub fn next(self) -> PartitionEpoch {
        PartitionEpoch(self.0.saturating_add(1))
    }
}

impl Incarnation {
    #[must_use]
    pub fn next(self) -> Incarnation {
        Incarnation(self.0.saturating_add(1))
    }
}

impl MetadataVersion {
    #[must_use]
    pub fn next(self) -> MetadataVersion {
        MetadataVersion(self.0.saturating_add(1))
    }
}

impl Millis {
    /// Milliseconds in a UTC day; leap seconds do not exist in this time scale.
    pub const DAY: i64 = 86_400_000;

    /// 2025-01-01: no clock that is right shows less.
    const EARLIEST_RIGHT: i64 = 1_735_689_600_000;

    /// Whether a clock that shows this can be right: boxes without a battery start in 1970.
    #[must_use]
    pub fn is_plausible(self) -> bool {
        self.0 >= Self::EARLIEST_RIGHT
    }

    /// The time `ms` milliseconds later.
    #[must_use]
    pub fn after(self, ms: i64) -> Millis {
        Millis(self.0.saturating_add(ms))
    }

    /// Days since 1970-01-01 (UTC), the day that the lake's `_date` holds.
    #[must_use]
    pub fn utc_day(self) -> i64 {
        self.0.div_euclid(Self::DAY)
    }

    /// The wall clock. For the edge of the program only: the machines take time as an argument.
    #[must_use]
    pub fn from_system(time: std::time::SystemTime) -> Millis {
        match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => Millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Err(before) => Millis(-i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_starts_at_midnight_utc_on_both_sides_of_the_epoch() {
        assert_eq!(Millis(0).utc_day(), 0);
        assert_eq!(Millis(Millis::DAY - 1).utc_day(), 0);
        assert_eq!(Millis(Millis::DAY).utc_day(), 1);
        assert_eq!(Millis(-1).utc_day(), -1);
    }
}
