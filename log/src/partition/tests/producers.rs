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
    let gap = Outcome::Refused(AppendError::AwaitsEarlier);
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

/// A leader of two replicas that both have to be in sync.
fn of_two() -> Model {
    Model::new(TopicConfig { min_insync_replicas: 2, ..config(false) })
}

/// The controller's `version`th word: whether the other replica is in sync.
fn other_in_sync(model: &mut Model, version: i32, is: bool) {
    let mut word = lead(0, &[2], if is { &[2] } else { &[] });
    word.partition_epoch = PartitionEpoch(version);
    model.event(Event::Lead(word));
}

fn outcome(model: &Model, of: Token) -> Outcome {
    let found = model.outcomes.iter().find(|(token, _)| *token == of);
    found.map(|(_, outcome)| outcome.clone()).unwrap()
}

fn refused(error: AppendError) -> Outcome {
    Outcome::Refused(error)
}

/// librdkafka, told of a gap, would send in a new epoch what is here already.
#[test]
fn what_comes_behind_a_batch_that_was_refused_for_a_while_waits_for_it() {
    let mut model = of_two();
    other_in_sync(&mut model, 1, true);
    produce(&mut model, &[(1, 0)]);
    other_in_sync(&mut model, 2, false);
    produce(&mut model, &[(2, 0), (3, 1)]);
    other_in_sync(&mut model, 3, true);
    produce(&mut model, &[(4, 2)]);
    for (token, error) in
        [(2, AppendError::NotEnoughReplicas), (3, AppendError::NotEnoughReplicas), (4, AppendError::AwaitsEarlier)]
    {
        assert_eq!(outcome(&model, token), refused(error));
    }
    produce(&mut model, &[(5, 0), (6, 1), (7, 2)]);
    model.event(replicated(0, 2, 3));
    for (token, offset) in [(5, 0), (6, 1), (7, 2)] {
        let at = Appended { base_offset: Offset(offset), last_offset: Offset(offset), append_time: None };
        assert_eq!(outcome(&model, token), Outcome::Appended(at));
    }
    // What does not come within half a minute is lost.
    for (token, now, error) in [
        (8, 0, AppendError::AwaitsEarlier),
        (9, 29_000, AppendError::AwaitsEarlier),
        (10, 31_000, AppendError::OutOfOrderSequence),
    ] {
        model.now = Millis(now);
        produce(&mut model, &[(token, 4)]);
        assert_eq!(outcome(&model, token), refused(error));
    }
}

#[test]
fn a_producer_whose_beginning_was_refused_begins_with_it() {
    let mut model = of_two();
    produce(&mut model, &[(1, 0)]);
    other_in_sync(&mut model, 1, true);
    produce(&mut model, &[(2, 1)]);
    assert_eq!(outcome(&model, 1), refused(AppendError::NotEnoughReplicas));
    assert_eq!(outcome(&model, 2), refused(AppendError::AwaitsEarlier));
    produce(&mut model, &[(3, 0), (4, 1)]);
    assert_eq!(model.records().len(), 2);
}

#[test]
fn a_new_leader_awaits_what_is_missing_as_long_as_any() {
    let mut model = Model::new(config(false));
    produce(&mut model, &[(1, 0), (2, 2)]);
    model.now = Millis(31_000);
    model.event(Event::Follow(Epoch(1), 3));
    produce(&mut model, &[(4, 1)]);
    model.event(Event::Lead(lead(2, &[], &[])));
    produce(&mut model, &[(5, 2)]);
    assert_eq!(outcome(&model, 4), refused(AppendError::NotLeader));
    assert_eq!(outcome(&model, 5), refused(AppendError::AwaitsEarlier));
    produce(&mut model, &[(6, 1), (7, 2)]);
    assert_eq!(model.records().len(), 3);
}
