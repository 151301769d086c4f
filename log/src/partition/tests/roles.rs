//! A role that changes while something of the one before is under way.

use super::*;

/// A leader of epoch 0 with three records that nobody else has, which then follows in epoch 1.
fn follows() -> Model {
    let mut model = Model::new(TopicConfig::default());
    model.event(Event::Lead(lead(0, &[2], &[2])));
    let mut word = lead(0, &[2], &[2]);
    word.partition_epoch = PartitionEpoch(1);
    model.event(Event::Lead(word));
    model.event(Event::Append(vec![append(1, 3)]));
    model.event(Event::Follow(Epoch(1), 2));
    assert_eq!(model.machine.watermarks().log_end, Offset(3));
    assert_eq!(model.machine.watermarks().high_watermark, Offset(0));
    model
}

#[test]
fn records_that_are_being_cut_are_not_led() {
    let mut model = follows();
    let cut = Truncation { epoch: Epoch(1), to: Offset(0), anew: None };
    // The model does not perform it: it is under way.
    model.event(Event::Truncate(cut, 3));
    let mut effects = Vec::new();
    model.machine.handle(model.now, Event::Lead(lead(2, &[], &[])), &mut effects);
    assert_eq!(model.machine.watermarks().high_watermark, Offset(0), "they are not shown");
    assert_eq!(model.machine.epochs().end_offset(Epoch(0), Offset(0)), None, "nor told of");
}

#[test]
fn what_is_being_cut_is_not_told_of() {
    let mut model = follows();
    let mut effects = Vec::new();
    let cut = Truncation { epoch: Epoch(1), to: Offset(0), anew: None };
    model.machine.handle(model.now, Event::Truncate(cut, 3), &mut effects);
    // Should the cut fail, the leader must not be told that all is there still.
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Watermarks(marks) => Some(marks.log_end),
        _ => None,
    });
    assert_eq!(told, Some(Offset(0)));
}
