//! What is sent: payloads made ahead of time, so that a message costs one copy and a few digits.

use std::path::Path;

use anyhow::{Context, ensure};
use forebay_log::Millis;

use crate::demo::readings::Readings;

/// Width of a client's name: `bench-`, six letters for the run, six digits.
pub(super) const NAME_BYTES: usize = 19;
/// Width of a sequence number, right-aligned: spaces, unlike zeros, may stand before a JSON number.
const SEQ_BYTES: usize = 10;
/// Width of a time, RFC 3339 with milliseconds.
pub(super) const TIME_BYTES: usize = 24;
/// Payloads made of one template, with other values each.
const VARIANTS: usize = 256;
/// How far apart two clients begin in the payloads.
const STRIDE: u64 = 977;

const READING: &str =
    r#"{"meter":"{client}","ts":"{time}","seq":{seq},"voltage_l1":{value},"voltage_l2":{value},"voltage_l3":{value}"#;
const SMALL_READING: &str = r#"{"seq":{seq},"v":{value}"#;

/// The payloads of a run.
#[derive(Debug)]
pub(super) struct Deck {
    cards: Vec<Box<[u8]>>,
    /// Where in every card the placeholders stand.
    client_at: Vec<usize>,
    seq_at: Vec<usize>,
    time_at: Vec<usize>,
}

impl Deck {
    /// A JSON reading of `size` bytes.
    ///
    /// # Errors
    /// So few bytes hold no reading.
    pub(super) fn reading(size: usize) -> anyhow::Result<Deck> {
        let templates = [READING, SMALL_READING];
        let plain = |template: &str| render(&format!("{template}}}"), &mut Dice(0)).0.len();
        let fits = templates.iter().find(|template| plain(template) == size || plain(template) + PAD.len() < size);
        let least = plain(SMALL_READING) + PAD.len() + 1;
        let template = fits.with_context(|| format!("a reading takes at least {least} bytes"))?;
        let length = plain(template);
        Ok(Deck::from_cards(|dice| {
            let pad: String = match size.saturating_sub(length + PAD.len() + 1) {
                0 if size == length => String::new(),
                n => format!("{PAD}{}\"", (0..n).map(|_| dice.letter()).collect::<String>()),
            };
            format!("{template}{pad}}}")
        }))
    }

    /// A template with the placeholders `{client}`, `{seq}`, `{time}` and `{value}`; other braces are text.
    pub(super) fn template(text: &str) -> Deck {
        Deck::from_cards(|_| text.to_owned())
    }

    /// Real readings, the ones in the binary or those of a CSV file, each with a sequence number put before its fields.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn readings(file: Option<&Path>) -> anyhow::Result<Deck> {
        let readings = file.map_or_else(Readings::embedded, Readings::from_file)?;
        let mut deck = Deck { cards: Vec::new(), client_at: Vec::new(), seq_at: Vec::new(), time_at: Vec::new() };
        for meter in &readings.meters {
            for payload in (0..meter.len()).filter_map(|index| meter.payload(index, 0)) {
                let rest = payload.strip_prefix('{').unwrap_or(&payload);
                let (bytes, marks) = render(&format!("{{\"seq\":{{seq}},{rest}"), &mut Dice(0));
                deck.seq_at = marks.into_iter().filter(|(_, mark)| *mark == Mark::Seq).map(|(at, _)| at).collect();
                deck.cards.push(bytes);
            }
        }
        ensure!(!deck.cards.is_empty(), "there are no readings to send");
        Ok(deck)
    }

    fn from_cards(mut text: impl FnMut(&mut Dice) -> String) -> Deck {
        let mut dice = Dice(1);
        let mut deck = Deck { cards: Vec::new(), client_at: Vec::new(), seq_at: Vec::new(), time_at: Vec::new() };
        for index in 0..VARIANTS {
            let text = text(&mut dice);
            let (bytes, marks) = render(&text, &mut dice);
            deck.cards.push(bytes);
            for (at, mark) in marks.into_iter().filter(|_| index == 0) {
                match mark {
                    Mark::Client => deck.client_at.push(at),
                    Mark::Seq => deck.seq_at.push(at),
                    Mark::Time => deck.time_at.push(at),
                }
            }
        }
        deck
    }

    /// Whether a message can be recognised when it is read back.
    pub(super) fn is_numbered(&self) -> bool {
        !self.seq_at.is_empty()
    }

    /// The largest payload, in bytes.
    pub(super) fn largest(&self) -> usize {
        self.cards.iter().map(|card| card.len()).max().unwrap_or(0)
    }

    /// The average payload, in bytes.
    pub(super) fn average(&self) -> usize {
        self.cards.iter().map(|card| card.len()).sum::<usize>() / self.cards.len().max(1)
    }

    /// The payload of message `seq` of client `number`, before its digits are put in.
    pub(super) fn card(&self, number: usize, seq: u64) -> &[u8] {
        let index = (number as u64).wrapping_mul(STRIDE).wrapping_add(seq) % self.cards.len() as u64;
        &self.cards[index as usize]
    }

    /// Puts name, number and time into a copy of a card.
    pub(super) fn fill(&self, payload: &mut [u8], name: &[u8; NAME_BYTES], seq: u64, time: &[u8; TIME_BYTES]) {
        for at in &self.client_at {
            payload[*at..at + NAME_BYTES].copy_from_slice(name);
        }
        for at in &self.time_at {
            payload[*at..at + TIME_BYTES].copy_from_slice(time);
        }
        for at in &self.seq_at {
            put_number(&mut payload[*at..at + SEQ_BYTES], seq);
        }
    }

    /// The sequence number in a payload that was read back.
    pub(super) fn seq(&self, payload: &[u8]) -> Option<u64> {
        let at = *self.seq_at.first()?;
        std::str::from_utf8(payload.get(at..at + SEQ_BYTES)?).ok()?.trim_start().parse().ok()
    }

    /// Whether `payload` is, byte for byte but for its time, what client `number` sent as message `seq`.
    pub(super) fn is_intact(&self, payload: &[u8], number: usize, name: &[u8; NAME_BYTES], seq: u64) -> bool {
        let mut expected = self.card(number, seq).to_vec();
        if payload.len() != expected.len() {
            return false;
        }
        let time = self.time_at.first().and_then(|at| payload.get(*at..at + TIME_BYTES)?.try_into().ok());
        self.fill(&mut expected, name, seq, &time.unwrap_or([0; TIME_BYTES]));
        payload == expected
    }
}

const PAD: &str = r#","note":""#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Client,
    Seq,
    Time,
}

/// The bytes of a template with room for what is put in later, and where.
fn render(template: &str, dice: &mut Dice) -> (Box<[u8]>, Vec<(usize, Mark)>) {
    let (mut bytes, mut marks) = (Vec::new(), Vec::new());
    let mut rest = template;
    let names =
        [("{client}", Mark::Client, NAME_BYTES), ("{seq}", Mark::Seq, SEQ_BYTES), ("{time}", Mark::Time, TIME_BYTES)];
    while let Some(at) = rest.find('{') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at..];
        if let Some((name, mark, width)) = names.iter().find(|(name, ..)| rest.starts_with(name)) {
            marks.push((bytes.len(), *mark));
            bytes.resize(bytes.len() + width, b' ');
            rest = &rest[name.len()..];
        } else if let Some(after) = rest.strip_prefix("{value}") {
            let value = dice.next() % 2000;
            bytes.extend_from_slice(format!("{}.{:02}", 220 + value / 100, value % 100).as_bytes());
            rest = after;
        } else {
            bytes.push(b'{');
            rest = &rest[1..];
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    (bytes.into_boxed_slice(), marks)
}

/// The text of the present time, made anew when the millisecond changes.
#[derive(Debug, Default)]
pub(super) struct TimeText {
    at: Option<Millis>,
    text: [u8; TIME_BYTES],
}

impl TimeText {
    pub(super) fn text(&mut self, at: Millis) -> &[u8; TIME_BYTES] {
        if self.at != Some(at) {
            self.at = Some(at);
            let time = chrono::DateTime::from_timestamp_millis(at.0).unwrap_or_default();
            let text = time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
            for (place, byte) in self.text.iter_mut().zip(text.bytes()) {
                *place = byte;
            }
        }
        &self.text
    }
}

fn put_number(place: &mut [u8], mut number: u64) {
    for (index, digit) in place.iter_mut().rev().enumerate() {
        let value = b'0' + (number % 10) as u8;
        *digit = if number == 0 && index > 0 { b' ' } else { value };
        number /= 10;
    }
}

/// Numbers that are the same in each run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn letter(&mut self) -> char {
        char::from(b'a' + u8::try_from(self.next() % 26).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8; NAME_BYTES] = b"bench-abcdef-000007";
    const TIME: &[u8; TIME_BYTES] = b"2026-01-02T03:04:05.678Z";

    fn payload(deck: &Deck, seq: u64) -> Vec<u8> {
        let mut payload = deck.card(7, seq).to_vec();
        deck.fill(&mut payload, NAME, seq, TIME);
        payload
    }

    #[test]
    fn a_reading_is_json_of_the_size_asked_for() {
        for size in [43, 50, 200, 1024] {
            let deck = Deck::reading(size).unwrap_or_else(|error| panic!("{size}: {error}"));
            let payload = payload(&deck, 1234);
            assert_eq!(payload.len(), size);
            let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!(json["seq"], 1234);
            if size == 200 {
                assert_eq!(
                    (json["meter"].as_str(), json["ts"].as_str()),
                    (Some("bench-abcdef-000007"), Some("2026-01-02T03:04:05.678Z"))
                );
            }
        }
        assert!(Deck::reading(20).unwrap_err().to_string().contains("at least"), "too small for a reading");
    }

    #[test]
    fn a_payload_that_comes_back_is_recognised_and_one_wrong_byte_is_seen() {
        for deck in
            [Deck::reading(200).unwrap(), Deck::readings(None).unwrap(), Deck::template("{seq};{time};{x};{value}")]
        {
            let mut payload = payload(&deck, 42);
            assert_eq!(deck.seq(&payload), Some(42));
            assert!(deck.is_intact(&payload, 7, NAME, 42));
            assert!(!deck.is_intact(&payload, 7, NAME, 43));
            let last = payload.len() - 1;
            payload[last] ^= 1;
            assert!(!deck.is_intact(&payload, 7, NAME, 42));
        }
    }

    #[test]
    fn real_readings_keep_their_fields() {
        let deck = Deck::readings(None).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&payload(&deck, 0)).unwrap();
        assert!(json["meter"].is_string() && json["ts"].is_string() && json["seq"] == 0, "{json}");
    }

    #[test]
    fn a_template_without_a_number_cannot_be_verified() {
        assert!(!Deck::template("{client} says {value}").is_numbered());
    }
}
