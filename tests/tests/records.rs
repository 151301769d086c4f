//! Record batches as another implementation of Kafka's format writes and reads them, through every codec.

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use forebay_log::record::{
    BatchBuilder, BatchHeader, Compression, RecordChunk, RecordReader, validate, validate_records,
};
use forebay_log::{Epoch, Millis, Offset};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as Theirs, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

const CODECS: [(Compression, Theirs); 5] = [
    (Compression::None, Theirs::None),
    (Compression::Gzip, Theirs::Gzip),
    (Compression::Snappy, Theirs::Snappy),
    (Compression::Lz4, Theirs::Lz4),
    (Compression::Zstd, Theirs::Zstd),
];
const RECORDS: i64 = 500;

fn payload(index: i64) -> String {
    format!("{{\"meter\":\"MAC{index:06}\",\"energy_kwh\":0.{index}}}")
}

#[test]
fn what_the_log_writes_kafkas_readers_read() -> Result<()> {
    for (codec, theirs) in CODECS {
        let mut chunk = RecordChunk::new();
        for index in 0..RECORDS {
            let value = payload(index);
            chunk.push(Millis(1_000 + index), Some(b"key"), Some(value.as_bytes()), &[("mqtt.qos", b"1")]);
        }
        let mut builder = BatchBuilder::new(codec);
        builder.push_chunk(&chunk);
        let mut batch = builder.build(Offset(77), Epoch(3)).context("records were pushed")?;
        let set = RecordBatchDecoder::decode(&mut batch).with_context(|| format!("{codec:?}"))?;
        assert_eq!(set.compression, theirs);
        assert_eq!(set.records.len(), usize::try_from(RECORDS)?);
        for (index, record) in (0..RECORDS).zip(&set.records) {
            assert_eq!((record.offset, record.timestamp), (77 + index, 1_000 + index), "{codec:?}");
            assert_eq!(record.partition_leader_epoch, 3);
            assert_eq!(record.value.as_deref(), Some(payload(index).as_bytes()));
            assert_eq!(record.headers.get(&b"mqtt.qos"[..]), Some(&Some(Bytes::from("1"))));
        }
    }
    Ok(())
}

#[test]
fn what_kafkas_writers_write_the_log_takes() -> Result<()> {
    let records: Vec<Record> = (0..RECORDS)
        .map(|index| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset: index,
            sequence: i32::try_from(index).unwrap_or_default(),
            timestamp: 5_000 - index,
            key: None,
            value: Some(Bytes::from(payload(index))),
            headers: IndexMap::from([(StrBytes::from_static_str("h"), None)]),
        })
        .collect();
    for (codec, theirs) in CODECS {
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: theirs };
        RecordBatchEncoder::encode(&mut batch, &records, &options)?;
        let batch = batch.freeze();
        let header = validate(&batch).with_context(|| format!("{codec:?}"))?;
        validate_records(&header, &batch, false)?;
        assert_eq!(header.compression(), Ok(codec));
        assert_eq!(BatchHeader::parse(&batch)?.record_count, i32::try_from(RECORDS)?);
        for (index, record) in (0..RECORDS).zip(RecordReader::new(&header, &batch)?) {
            let record = record?;
            assert_eq!((record.offset, record.timestamp), (Offset(index), Millis(5_000 - index)), "{codec:?}");
            assert_eq!(record.value, Some(Bytes::from(payload(index))));
            assert_eq!(record.headers.len(), 1);
        }
    }
    Ok(())
}
