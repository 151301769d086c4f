//! `message.timestamp.type=LogAppendTime`: every record has the time at which the leader appended it.

use super::*;
use crate::record::{BatchBuilder, Compression, validate};
use crate::topic::TimestampType;

#[test]
fn records_get_the_time_of_their_append_whoever_sends_them() {
    let mut model =
        Model::at(Millis(5000), TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..config(false) });
    let mut builder = BatchBuilder::new(Compression::Lz4);
    builder.push_chunk(&chunk(9, 4));
    let batch = builder.build(Offset(0), Epoch(0)).unwrap();
    model.event(Event::Append(vec![append(1, 2), Append { data: AppendData::Batches(batch), all: true, token: 2 }]));
    for stored in Batches::new(model.segments[0].1.clone().into()) {
        let (header, bytes) = stored.unwrap();
        validate(&bytes).unwrap();
        assert!(header.is_log_append_time());
        for record in RecordReader::new(&header, &bytes).unwrap() {
            assert_eq!(record.unwrap().timestamp, Millis(5000));
        }
    }
    assert_eq!(model.records().len(), 6);
    for (_, outcome) in &model.outcomes {
        assert!(matches!(outcome, Outcome::Appended(Appended { append_time: Some(Millis(5000)), .. })), "{outcome:?}");
    }
}
