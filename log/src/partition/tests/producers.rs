//! Idempotent producers: what is sent again is stored once.

use super::*;

/// A batch of one record that an idempotent producer sent as its `sequence`th.
fn sequenced(sequence: i32, value: &str) -> bytes::Bytes {
    let mut builder = crate::record::BatchBuilder::new(crate::record::Compression::None);
    builder.push(0, Millis(0), None, Some(value.as_bytes()), &[]);
    let mut batch = builder.build(Offset::ZERO, Epoch(-1)).unwrap().to_vec();
    batch[43..51].copy_from_slice(&77i64.to_be_bytes());
    batch[51..53].copy_from_slice(&0i16.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

fn produce(model: &mut Model, batches: &[(Token, i32)]) {
    let append = |&(token, sequence): &(Token, i32)| {
        let data = AppendData::Batches(sequenced(sequence, &format!("s{sequence}")));
        if let AppendData::Batches(batches) = &data {
            check_batches(batches, &TopicConfig::default()).unwrap();
        }
        Append { data, all: true, token }
    };
    model.event(Event::Append(batches.iter().map(append).collect()));
}

#[test]
fn a_batch_that_is_sent_again_is_stored_once_and_answered_with_its_first_offset() {
    let mut model = Model::new(config(false));
    produce(&mut model, &[(1, 0), (2, 1), (3, 1)]);
    produce(&mut model, &[(4, 0)]);
    produce(&mut model, &[(5, 3)]);
    let at = |n| Outcome::Appended(Appended { base_offset: Offset(n), last_offset: Offset(n), append_time: None });
    let gap = Outcome::Refused(AppendError::OutOfOrderSequence);
    assert_eq!(model.outcomes, [(1, at(0)), (2, at(1)), (3, at(1)), (4, at(0)), (5, gap)]);
    assert_eq!(model.records().len(), 2);
}

#[test]
fn a_batch_whose_write_failed_is_stored_by_its_retry() {
    let mut model = Model::new(config(false));
    model.failures = vec![true];
    produce(&mut model, &[(1, 0), (2, 1)]);
    produce(&mut model, &[(3, 0), (4, 1)]);
    assert!(matches!(model.outcomes[..2], [(_, Outcome::Refused(_)), (_, Outcome::Refused(_))]));
    assert_eq!(model.records().into_iter().map(|(_, value)| value).collect::<Vec<_>>(), ["s0", "s1"]);
}

#[test]
fn batches_of_an_idempotent_producer_come_alone() {
    let two = [sequenced(0, "a"), sequenced(1, "b")].concat();
    assert!(matches!(check_batches(&two.into(), &TopicConfig::default()), Err(AppendError::Invalid(_))));
}
