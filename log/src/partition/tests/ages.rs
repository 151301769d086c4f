//! Retention under a clock that was wrong and is set right: what was stored before that is as old as it is, no older.

use super::*;
use crate::limits::CLOCK_SETTLE_MS;

/// 2026-01-01T00:00:00Z
const RIGHT: Millis = Millis(1_767_225_600_000);
const MONTH: i64 = 30 * Millis::DAY;
/// `retention.ms` of [`config`].
const RETENTION: i64 = 60_000;

/// A partition that was opened at `now`, with two closed segments and an active one of two records each.
fn filled(now: Millis) -> Model {
    let mut model = Model::at(now, config(false));
    for token in 1..=3 {
        model.event(Event::Append(vec![append(token, 2)]));
        if token < 3 {
            model.event(Event::Roll(0));
        }
    }
    model
}

/// The partition after a restart at `now`.
fn again(mut model: Model, now: Millis) -> Model {
    let machine = &model.machine;
    let restored = Restored {
        segments: machine.segments.clone(),
        log_end: machine.log_end,
        high_watermark: machine.log_end,
        starts: machine.starts.clone(),
        epochs: machine.epochs.clone(),
        producers: Producers::default(),
    };
    model.now = now;
    model.machine = Partition::new(config(false), now, restored);
    model.event(Event::Lead(lead(0, &[], &[])));
    model
}

fn set_clock(model: &mut Model, to: Millis) {
    let by = to.0 - model.now.0;
    model.now = to;
    model.event(Event::ClockStepped { by });
    model.event(Event::Tick);
}

fn pass(model: &mut Model, millis: i64) {
    model.now.0 += millis;
    model.event(Event::Tick);
}

#[test]
fn records_of_the_minutes_before_the_clock_was_set_stay_for_their_retention() {
    let boots = [Millis(5000), Millis(RIGHT.0 - MONTH), Millis(RIGHT.0 + MONTH)];
    for boot in boots {
        let mut model = filled(boot);
        pass(&mut model, 10_000);
        set_clock(&mut model, RIGHT);
        assert_eq!(model.records().len(), 6, "booted at {boot}");
        pass(&mut model, RETENTION / 2);
        assert_eq!(model.records().len(), 6, "booted at {boot}");
        pass(&mut model, RETENTION);
        assert_eq!(model.log_start, Offset(6), "booted at {boot}: then they go");
    }
}

#[test]
fn a_segment_of_before_the_start_keeps_its_age() {
    // Off for a month, started with the hour of the shutdown, then set right: they are a month old.
    let mut model = again(filled(RIGHT), Millis(RIGHT.0 + 5000));
    let right = Millis(model.now.0 + MONTH);
    set_clock(&mut model, right);
    assert_eq!(model.log_start, Offset::ZERO, "whether the clock is right now must show first");
    pass(&mut model, CLOCK_SETTLE_MS);
    assert_eq!(model.log_start, Offset(6));
}

#[test]
fn a_clock_that_is_wrongly_ahead_for_a_while_takes_nothing() {
    let mut model = filled(RIGHT);
    let ahead = Millis(RIGHT.0 + 70 * 12 * MONTH);
    set_clock(&mut model, ahead);
    pass(&mut model, RETENTION / 2);
    set_clock(&mut model, Millis(RIGHT.0 + RETENTION / 2));
    assert_eq!(model.records().len(), 6, "set ahead and back in one run");
    let mut restarted = again(model, ahead);
    pass(&mut restarted, CLOCK_SETTLE_MS / 2);
    set_clock(&mut restarted, Millis(RIGHT.0 + RETENTION - 1));
    assert_eq!(restarted.records().len(), 6, "started ahead, then set right");
}

#[test]
fn a_time_that_no_clock_can_have_shown_counts_from_now_on() {
    let mut model = filled(Millis(5000));
    // Nobody saw the step: the box was started anew, and recovery took what the files said.
    model.now = RIGHT;
    model.event(Event::Tick);
    assert_eq!(model.records().len(), 6);
    let stamps = model.stamps.clone();
    assert_eq!(stamps, [0, 2, 4].map(|base| (Offset(base), RIGHT)), "told to the disk");
    pass(&mut model, RETENTION + 1);
    assert_eq!(model.log_start, Offset(6));
}

#[test]
fn cold_segments_do_not_go_because_the_clock_was_set() {
    let mut model = Model::at(Millis(5000), TopicConfig { local_retention_ms: Some(0), ..config(true) });
    model.event(Event::Append(vec![append(1, 2)]));
    model.event(Event::Roll(0));
    model.event(Event::SetTiered(Offset(2), 0));
    pass(&mut model, 1);
    assert_eq!(model.machine.starts.cold.len(), 1);
    set_clock(&mut model, RIGHT);
    assert_eq!(model.log_start, Offset::ZERO);
    assert_eq!(model.saved.cold[0].appended.0, RIGHT.0 - 1, "durably");
    pass(&mut model, RETENTION);
    assert_eq!(model.log_start, Offset(2));
}

#[test]
fn a_clock_that_is_set_back_does_not_keep_an_offline_partition_from_its_repair() {
    let mut model = filled(Millis(RIGHT.0 + MONTH));
    model.failures = vec![true, true];
    model.event(Event::Append(vec![append(9, 1)]));
    assert!(model.machine.offline().is_some());
    set_clock(&mut model, RIGHT);
    pass(&mut model, REPAIR_RETRY_MS);
    assert_eq!(model.machine.offline(), None);
}
