//! Reads the log for one subscriber that was away or whose queue was full, from its own cursor to where the tailer is.

use std::sync::{Arc, PoisonError};

use forebay_log::Offset;
use tokio::time::Instant;
use tracing::warn;

use super::hub::Hub;
use super::subscriber::Lane;
use super::{Delivery, PartId, Place, Published, Receiving, tailer};
use crate::mqtt::packet::{Qos, Text};
use crate::mqtt::session::Subscription;
use crate::mqtt::{record, topic};

/// What one read found for the subscriber.
#[derive(Debug)]
pub(crate) struct Page {
    part: PartId,
    next: Offset,
    got_on: bool,
    deliveries: Vec<Delivery>,
}

impl Hub {
    /// Reads one page of a partition for a subscriber. At QoS 1 only: what is sent at QoS 0 is not kept for anyone.
    pub(crate) async fn read_page(
        self: Arc<Self>,
        client_id: Text,
        subscriptions: Arc<[Subscription]>,
        part_id: PartId,
        from: Offset,
    ) -> Page {
        let nothing = Page { part: part_id, next: from, got_on: false, deliveries: Vec::new() };
        let Some(part) = self.part(part_id) else { return nothing };
        match tailer::read(&self, &part, from).await {
            Ok((records, next)) => {
                let deliveries = records
                    .iter()
                    .filter_map(|record| {
                        let place = Place { partition: part_id, offset: record.offset };
                        let topic = record::topic(record)?;
                        if !subscriptions.iter().any(|s| topic::matches(s.filter.as_str(), topic)) {
                            return None;
                        }
                        deliver(&client_id, &subscriptions, record::published(record, &self.clock)?, place)
                    })
                    .collect();
                Page { part: part_id, next, got_on: next > from, deliveries }
            }
            Err(error) => {
                // All of them together: one partition that cannot be read may hold up thousands.
                let told = part.trouble.lock().unwrap_or_else(PoisonError::into_inner).met("", Instant::now());
                if let Some(suppressed) = told {
                    warn!(topic = part.partition.topic(), partition = part.partition.index(),
                        client = client_id.as_str(), %error, suppressed,
                        "cannot read for subscribers that fell behind, trying again");
                }
                nothing
            }
        }
    }

    /// Takes a page: its messages come next, and the queue takes over once the subscriber has caught up.
    pub(crate) fn turn_page(&self, receiving: &mut Receiving, page: Page) {
        match self.part(page.part) {
            Some(part) => self.caught_up_to(receiving, &part, page.next, page.got_on),
            // Its topic was deleted.
            None => receiving.subscriber.lane(page.part, |lane| *lane = Lane::default()),
        }
        receiving.put_first(page.deliveries);
    }
}

/// The delivery of a message to one session by all its filters that match.
fn deliver(client_id: &Text, subscriptions: &[Subscription], published: Published, place: Place) -> Option<Delivery> {
    let mut delivery = Delivery {
        published: Arc::new(published),
        qos: Qos::AtMostOnce,
        retain: false,
        identifiers: Vec::new(),
        place: Some(place),
    };
    let published = delivery.published.clone();
    for subscription in subscriptions {
        let own = subscription.no_local && published.client_id == *client_id;
        if own || !topic::matches(subscription.filter.as_str(), published.message.topic.as_str()) {
            continue;
        }
        delivery.qos = delivery.qos.max(subscription.qos.min(published.message.qos));
        delivery.retain |= subscription.retain_as_published && published.message.retain;
        delivery.identifiers.extend(subscription.identifier);
    }
    (delivery.qos != Qos::AtMostOnce).then_some(delivery)
}
