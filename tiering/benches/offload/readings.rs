//! The readings that the benches offload: segments as the log writes them, of the payloads that meters send.

use bytes::{Bytes, BytesMut};
use forebay_log::record::{BatchBuilder, BatchHeader, Compression, RecordChunk};
use forebay_log::{Epoch, Millis, Offset};
use forebay_tiering::parquet::{SegmentSource, SourceError, Stretch};

const LONDON: &[u8] = include_bytes!("../../../examples/data/london_30min_2013-02-04_2013-02-17_40_meters.csv.zst");
const HOUSEHOLD: &[u8] = include_bytes!("../../../examples/data/household_1min_2009-02-01_2009-02-07.csv.zst");
/// Records that one commit of the log gathers under load.
const BATCH_RECORDS: usize = 500;
/// Bytes that one read of the log returns.
const READ_BYTES: usize = 1 << 20;
/// Arrival of the first record.
const START: i64 = 1_700_000_000_000;

/// One message of a meter.
pub(crate) struct Message {
    pub(crate) meter: String,
    pub(crate) payload: String,
}

/// Stored batches of one segment.
pub(crate) struct Segment {
    batches: Vec<(BatchHeader, Bytes)>,
    pub(crate) records: usize,
    pub(crate) payload_bytes: usize,
}

impl Segment {
    /// What a segment holds after the MQTT door and the log took `messages`.
    pub(crate) fn of(messages: &[Message]) -> Segment {
        let mut batches = Vec::new();
        for (index, messages) in messages.chunks(BATCH_RECORDS).enumerate() {
            let mut chunk = RecordChunk::new();
            for (at, Message { meter, payload }) in messages.iter().enumerate() {
                let topic = format!("meters/{meter}/readings");
                let headers: [(&str, &[u8]); 3] =
                    [("mqtt.topic", topic.as_bytes()), ("mqtt.client", meter.as_bytes()), ("mqtt.qos", b"1")];
                let time = Millis(START + (index * 5 + at / 100) as i64);
                chunk.push(time, Some(meter.as_bytes()), Some(payload.as_bytes()), &headers);
            }
            let mut builder = BatchBuilder::new(Compression::Zstd);
            builder.push_chunk(&chunk);
            let batch = builder.build(Offset((index * BATCH_RECORDS) as i64), Epoch(1)).expect("records");
            batches.push((BatchHeader::parse(&batch).expect("a header"), batch));
        }
        let payload_bytes = messages.iter().map(|message| message.payload.len()).sum();
        Segment { batches, records: messages.len(), payload_bytes }
    }

    pub(crate) fn end(&self) -> Offset {
        Offset(self.records as i64)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.batches.iter().map(|(_, batch)| batch.len()).sum()
    }

    pub(crate) fn source(&self) -> Source<'_> {
        Source(self)
    }
}

/// Reads as the log does: whole batches, checksums checked.
pub(crate) struct Source<'s>(&'s Segment);

impl SegmentSource for Source<'_> {
    fn read(&mut self, from: Offset) -> Result<Stretch, SourceError> {
        let first = self.0.batches.partition_point(|(header, _)| header.next_offset() <= from);
        let mut out = BytesMut::with_capacity(READ_BYTES);
        for (header, batch) in &self.0.batches[first..] {
            if !out.is_empty() && out.len() + batch.len() > READ_BYTES {
                break;
            }
            header.check_crc(batch).map_err(|problem| SourceError(problem.to_string()))?;
            out.extend_from_slice(batch);
        }
        Ok(Stretch::Batches(out.freeze()))
    }
}

/// What `forebay bench mqtt` sends: 200 bytes each, from 100 clients. `gap` stands before the sequence number.
pub(crate) fn fleet(count: usize, gap: &str) -> Vec<Message> {
    let mut dice = Dice(1);
    let notes: Vec<String> = (0..256).map(|_| (0..64).map(|_| dice.letter()).collect()).collect();
    let value = |dice: &mut Dice| {
        let value = dice.next() % 2000;
        format!("{}.{:02}", 220 + value / 100, value % 100)
    };
    let message = |n: usize| {
        let meter = format!("bench-abcdef-{:06}", n % 100);
        let (one, two, three) = (value(&mut dice), value(&mut dice), value(&mut dice));
        let (ms, seq, note) = (n / 500, 1_000_000 + n / 100, &notes[n * 977 % notes.len()]);
        let payload = format!(
            "{{\"meter\":\"{meter}\",\"ts\":\"2026-01-02T03:{:02}:{:02}.{:03}Z\",\"seq\":{gap}{seq},\"voltage_l1\":{one},\
             \"voltage_l2\":{two},\"voltage_l3\":{three},\"note\":\"{note}\"}}",
            ms / 60_000 % 60,
            ms / 1000 % 60,
            ms % 1000,
        );
        Message { meter, payload }
    };
    (0..count).map(message).collect()
}

/// The real readings of `examples/data`, as the demo sends them, over and over; meters take turns.
pub(crate) fn real(count: usize) -> Vec<Message> {
    let mut messages = rows(LONDON, |cells| Message {
        meter: cells[0].to_owned(),
        payload: format!(
            r#"{{"meter":"{}","ts":"{}Z","energy(kWh/hh)":{}}}"#,
            cells[0],
            cells[1].replace(' ', "T"),
            cells[2].trim()
        ),
    });
    let names = [
        "active_power",
        "reactive_power",
        "voltage",
        "intensity",
        "sub_metering_1",
        "sub_metering_2",
        "sub_metering_3",
    ];
    messages.extend(rows(HOUSEHOLD, |cells| {
        let members: Vec<_> = names.iter().zip(&cells[1..]).map(|(name, cell)| format!("\"{name}\":{cell}")).collect();
        let ts = cells[0].replace(' ', "T");
        let payload = format!(r#"{{"meter":"household","ts":"{ts}Z",{}}}"#, members.join(","));
        Message { meter: "household".into(), payload }
    }));
    let stride = 7919;
    let total = messages.len();
    (0..count)
        .map(|n| {
            let Message { meter, payload } = &messages[n * stride % total];
            Message { meter: meter.clone(), payload: payload.clone() }
        })
        .collect()
}

fn rows(packed: &[u8], message: impl Fn(&[&str]) -> Message) -> Vec<Message> {
    let text = zstd::stream::decode_all(packed).expect("Zstandard data");
    let text = String::from_utf8(text).expect("text");
    text.lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>())
        .filter(|cells| !cells.contains(&"?"))
        .map(|cells| message(&cells))
        .collect()
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
