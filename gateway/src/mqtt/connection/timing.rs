//! A connection's timer: what is due next, and what is done then.

use std::pin::Pin;

use tokio::time::{Duration, Instant, Sleep};

use super::driver::{Driver, End};
use crate::mqtt::session::Event;

/// The timer's rest when nothing is due.
pub(super) const FAR: Duration = Duration::from_secs(3600);

impl Driver {
    pub(super) fn set_timer(&self, timer: Pin<&mut Sleep>, drain_by: Option<Instant>) {
        let session = self.session.next_deadline().map(|at| self.broker.clock.instant(at));
        let due = [session, self.output.deadline(), self.cursors_due, drain_by].into_iter().flatten().min();
        // A timer that rings too early is set again; so a deadline that moves back with every packet costs nothing.
        let armed = timer.deadline();
        let due = due.unwrap_or_else(|| Instant::now() + FAR);
        if due < armed || timer.is_elapsed() {
            timer.reset(due);
        }
    }

    pub(super) fn time(&mut self) {
        let now = Instant::now();
        if self.output.deadline().is_some_and(|at| at <= now) {
            self.output.give_up();
            return self.end(End::Lost);
        }
        if self.cursors_due.is_some_and(|at| at <= now) {
            self.store_cursors();
        }
        if self.ending.is_none() {
            if self.room_to_read() == 0 {
                // It is we who do not read.
                self.session.heard(self.broker.clock.now());
            }
            self.event(Event::Tick);
        }
    }
}
