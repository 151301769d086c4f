//! What a connected session receives: the queue of its subscriptions, pages read in catching up, retained messages.

use std::collections::VecDeque;
use std::sync::Arc;

use forebay_log::Offset;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::mqtt::Broker;
use crate::mqtt::delivery::{Delivery, Lag, Page, PartId, Receiving};
use crate::mqtt::keeping::Keepings;
use crate::mqtt::limits::RETAINED_PAGE;
use crate::mqtt::packet::{Qos, Text};
use crate::mqtt::session::{Cursors, Session, Subscription};

/// Retained messages still to be sent for a subscription.
struct Scan {
    subscription: Subscription,
    after: Option<Text>,
    /// Those below are to be kept before it begins.
    keepings: u64,
}

/// What came.
pub(super) enum Fed {
    Delivery(Delivery),
    Page(Page),
    /// What was waited for is there: `Feed::fill` goes on.
    Again,
}

/// Only sessions with subscriptions have one.
pub(super) struct Feed {
    pub(super) receiving: Receiving,
    subscriptions: Option<Arc<[Subscription]>>,
    page: Option<BoxFuture<'static, Page>>,
    again: Option<Instant>,
    keepings: Arc<Keepings>,
    /// What comes next are retained messages, and they wait for these.
    held: Option<u64>,
    scans: VecDeque<Scan>,
}

impl Feed {
    /// Joins delivery; with `cursors` it begins with what the session missed.
    pub(super) fn join(broker: &Broker, client_id: &Text, cursors: Option<&Cursors>) -> Feed {
        let receiving = broker.hub.join(client_id.clone(), broker.config.max_queued_messages, cursors);
        Feed {
            receiving,
            subscriptions: None,
            page: None,
            again: None,
            keepings: broker.retained.keepings.clone(),
            held: None,
            scans: VecDeque::new(),
        }
    }

    /// The session's subscriptions have changed.
    pub(super) fn changed(&mut self) {
        self.subscriptions = None;
    }

    pub(super) fn send_retained(&mut self, subscription: Subscription) {
        let keepings = self.keepings.next();
        // One for each filter, however often it is subscribed to.
        self.scans.retain(|scan| scan.subscription.filter != subscription.filter);
        self.scans.push_back(Scan { subscription, after: None, keepings });
    }

    /// Whether a message or a page comes; cancel-safe.
    pub(super) async fn next(&mut self, may_deliver: bool) -> Fed {
        let again = self.again.filter(|_| self.page.is_none());
        let rested = async {
            match again {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let page = async {
            match &mut self.page {
                Some(page) => page.await,
                None => std::future::pending().await,
            }
        };
        let (held, keepings) = (self.held, &self.keepings);
        let kept = async {
            match held {
                Some(number) => keepings.end_below(number).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            page = page => {
                self.page = None;
                Fed::Page(page)
            }
            () = rested => {
                self.again = None;
                Fed::Again
            }
            () = kept => Fed::Again,
            delivery = self.receiving.next(), if may_deliver && held.is_none() => Fed::Delivery(delivery),
        }
    }

    /// The next message, if there is one now; to be called after `fill`.
    pub(super) fn try_next(&mut self) -> Option<Delivery> {
        if self.held.is_some() { None } else { self.receiving.try_next() }
    }

    /// Fetches what goes before the queue: retained messages, then pages of partitions in which the session is behind.
    pub(super) fn fill(&mut self, broker: &Broker, session: &Session) {
        self.held = None;
        while !self.receiving.has_backlog()
            && let Some(scan) = self.scans.front_mut()
        {
            if !self.keepings.have_ended_below(scan.keepings) {
                self.held = Some(scan.keepings);
                return;
            }
            let filter = scan.subscription.filter.as_str();
            let (found, more) = broker.retained.page(filter, scan.after.as_ref(), RETAINED_PAGE);
            scan.after = found.last().map(|published| published.message.topic.clone());
            let subscription = &scan.subscription;
            self.receiving.put_first(found.into_iter().map(|published| Delivery {
                qos: subscription.qos.min(published.message.qos).min(Qos::AtLeastOnce),
                published,
                retain: true,
                identifiers: subscription.identifier.into_iter().collect(),
                place: None,
            }));
            if !more {
                self.scans.pop_front();
            }
        }
        if self.page.is_none() {
            self.again = None;
            match self.receiving.lagging() {
                Lag::None => {}
                Lag::At(part, from) => self.read_page(broker, session, part, from),
                Lag::Until(at) => self.again = Some(at),
            }
        }
    }

    fn read_page(&mut self, broker: &Broker, session: &Session, part: PartId, from: Offset) {
        let subscriptions =
            self.subscriptions.get_or_insert_with(|| session.kept.subscriptions.iter().cloned().collect()).clone();
        let page = broker.hub.clone().read_page(session.client_id.clone(), subscriptions, part, from);
        self.page = Some(Box::pin(page));
    }
}
