//! The end of a connection: what is on its way into the log is settled, the will is published, the session is parked,
//! handed over or ended.

use forebay_log::Millis;
use futures_util::stream::StreamExt;
use tokio::io::AsyncWrite;
use tokio::time::{Instant, timeout_at};

use super::driver::{Driver, End};
use crate::mqtt::intents::Mark;
use crate::mqtt::limits::DRAIN_TIMEOUT;
use crate::mqtt::packet::Will;
use crate::mqtt::reason;
use crate::mqtt::registry::Parked;
use crate::mqtt::session::{Then, cursor_key, intent_key, session_key};

/// Ends a connection. The session has another owner, or none, when this returns.
pub(super) async fn part<W: AsyncWrite + Unpin>(mut driver: Box<Driver>, end: End, writer: &mut W) {
    let goodbye = match &end {
        End::Closing(code) => Some((*code, None)),
        End::Malformed { reason, what } => Some((*reason, Some(what.clone()))),
        End::Lost | End::TakenOver | End::Shutdown => None,
    };
    if let Some((code, what)) = goodbye {
        if code != reason::SUCCESS {
            driver.broker.metrics.mqtt.disconnected(code);
        }
        driver.say_goodbye(code, what);
        driver.output.finish(writer).await;
    }
    if end == End::Shutdown {
        // What a stalled log does not settle in time is not acknowledged; the client sends it again.
        let _ = timeout_at(Instant::now() + DRAIN_TIMEOUT, settle(&mut driver)).await;
    } else {
        settle(&mut driver).await;
    }
    match end {
        End::TakenOver => driver.say_goodbye(reason::SESSION_TAKEN_OVER, None),
        End::Shutdown => driver.say_goodbye(reason::SERVER_SHUTTING_DOWN, None),
        End::Lost | End::Closing(_) | End::Malformed { .. } => {}
    }
    hand_on(&mut driver, &end).await;
    if goodbye_is_due(&end) {
        driver.output.finish(writer).await;
    }
}

fn goodbye_is_due(end: &End) -> bool {
    matches!(end, End::Lost | End::TakenOver | End::Shutdown)
}

/// Waits for all appends and state changes, and lets the session know: its acks are put out if the peer is still there.
async fn settle(driver: &mut Driver) {
    loop {
        for event in std::mem::take(&mut driver.again) {
            driver.event(event);
        }
        driver.appends.start(&driver.broker, &driver.live);
        if let Some(submitting) = &mut driver.appends.submitting {
            let submitted = submitting.await;
            driver.appends.submitted(submitted);
        } else if let Some(settled) = driver.appends.groups.next().await {
            driver.settled(settled);
        } else if let Some((then, result)) = driver.stores.next().await {
            driver.stored(then, result);
        } else if driver.again.is_empty() {
            return;
        }
    }
}

async fn hand_on(driver: &mut Driver, end: &End) {
    let broker = driver.broker.clone();
    let now = broker.clock.now();
    let persistent = driver.session.is_persistent();
    let client_id = driver.session.client_id.clone();
    leave_delivery(driver);
    let lost = driver.live.lost();
    // At shutdown a will would tell of a loss that is none; the server may defer it [MQTT-3.1.2-8 and its note].
    let will = if *end == End::Shutdown { None } else { driver.session.take_will() };
    let mut delayed: Option<(Millis, Box<Will>)> = None;
    if let Some(will) = will {
        if lost.is_some_and(|claim| persistent && will.delay_interval > 0 && !claim.clean) {
            // The session goes on elsewhere before the will is due [MQTT-3.1.3-9].
        } else if lost.is_none() && persistent && will.delay_interval > 0 {
            delayed = Some((Millis(now.0 + i64::from(will.delay_interval) * 1000), will));
        } else {
            broker.publish_will(&client_id, *will).await;
        }
    }
    if lost.is_some() {
        // Another node has the session: nothing of it is stored here any more.
        return broker.let_go(&driver.live, None).await;
    }
    let (scope, owner) = (driver.live.scope(), driver.live.owner());
    let entry = driver.session.entry(Some(broker.clock.moment(now).wall));
    let mut kept = std::mem::take(&mut driver.session.kept);
    if !persistent {
        driver.live.end();
        if driver.is_stored || owner.is_some() {
            broker.forget_session(&client_id, &scope).await;
        }
        return broker.let_go(&driver.live, None).await;
    }
    broker.make_room_for(&mut kept);
    let mut stored_cursors = kept.cursors.clone();
    broker.hub.hold_back(&mut stored_cursors, kept.outbound.unacknowledged());
    let mut changes = vec![(session_key(scope.as_str()), Some(entry))];
    if !kept.subscriptions.is_empty() {
        changes.push((cursor_key(scope.as_str()), Some(stored_cursors.encode())));
    }
    for (stream, packet_id) in kept.inbound.received() {
        changes.push((intent_key(scope.as_str(), stream, packet_id), Some(Mark::Received.encode())));
    }
    // Should this fail, the session is as it was stored before: older cursors, marks that are looked up in the log.
    driver.store(changes, Then::Nothing);
    if *end == End::Shutdown {
        let _ = timeout_at(Instant::now() + DRAIN_TIMEOUT, driver.stores.next()).await;
    } else {
        driver.stores.next().await;
    }
    let expires_at = Millis(now.0 + i64::from(driver.session.expiry) * 1000);
    let version = driver.session.version;
    let parked = Parked { kept, scope, owner, version, expires_at, will: delayed };
    broker.let_go(&driver.live, Some(Box::new(parked))).await;
}

fn leave_delivery(driver: &mut Driver) {
    if let Some(feed) = driver.feed.take() {
        let filters = driver.session.kept.subscriptions.iter().map(|subscription| subscription.filter.as_str());
        driver.session.kept.cursors = driver.broker.hub.leave(feed.receiving, filters);
    }
}
