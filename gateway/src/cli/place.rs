//! A place in a topic as the command line names it: `--from`, `--to`.

use std::str::FromStr;
use std::time::SystemTime;

use forebay_log::{Millis, Offset};

use crate::client::kafka::{At, Client};
use crate::config::{TimeUnit, parse_time};

/// A place in every partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Beginning,
    End,
    Offset(i64),
    /// So many milliseconds before now.
    Ago(i64),
    At(Millis),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        match text {
            "beginning" => return Ok(Place::Beginning),
            "end" => return Ok(Place::End),
            _ if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                return text.parse().map(Place::Offset).map_err(|_| format!("{text} is too large for an offset"));
            }
            _ => {}
        }
        if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
            return Ok(Place::At(Millis(time.timestamp_millis())));
        }
        let ago = parse_time(text, TimeUnit::Milliseconds).ok().filter(|ms| *ms >= 0).map(Place::Ago);
        ago.ok_or_else(|| "expected beginning, end, an offset, an age (90s, 1h, 7d) or a time (RFC 3339)".to_owned())
    }
}

impl Place {
    /// Its offset in one partition.
    ///
    /// # Errors
    /// The leader cannot be reached, or refuses.
    pub(super) async fn find(
        self,
        client: &mut Client,
        leader: i32,
        topic: &str,
        partition: i32,
    ) -> anyhow::Result<Offset> {
        let at = match self {
            Place::Offset(offset) => {
                // Kafka would refuse an offset outside of the log; the nearest one inside is what is meant.
                let start = client.offset(leader, topic, partition, At::Beginning).await?;
                let end = client.offset(leader, topic, partition, At::End).await?;
                return Ok(Offset(offset).clamp(start, end));
            }
            Place::Beginning => At::Beginning,
            Place::End => At::End,
            Place::Ago(ms) => At::Time(Millis(Millis::from_system(SystemTime::now()).0 - ms)),
            Place::At(time) => At::Time(time),
        };
        client.offset(leader, topic, partition, at).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_word_an_offset_an_age_or_a_time() {
        let hour = 3_600_000;
        for (text, place) in [
            ("beginning", Place::Beginning),
            ("end", Place::End),
            ("0", Place::Offset(0)),
            ("5000000000", Place::Offset(5_000_000_000)),
            ("1h", Place::Ago(hour)),
            ("1970-01-01T01:00:00Z", Place::At(Millis(hour))),
            ("1970-01-01T02:00:00+01:00", Place::At(Millis(hour))),
        ] {
            assert_eq!(text.parse(), Ok(place), "{text}");
        }
        for wrong in ["", "-1", "soon", "1970-01-01", "99999999999999999999"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
