//! Calls that wait for one answer: subscribe, unsubscribe, ping, a single acknowledged publish.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;

use super::{Client, ClientError, Event};
use crate::mqtt::packet::{Incoming, Qos, SubscribeFilter, Text};

impl Client {
    /// Publishes and waits for the acknowledgement: its reason code. Other events wait for [`Client::next`].
    pub async fn publish_and_wait(
        &mut self,
        topic: impl Into<Text>,
        payload: Bytes,
        qos: Qos,
    ) -> Result<u8, ClientError> {
        /// Not a tag that anyone counts up to.
        const TAG: u64 = u64::MAX;
        self.publish(topic, payload, qos, TAG).await?;
        if qos == Qos::AtMostOnce {
            self.flush().await?;
            return Ok(0);
        }
        self.wait_for(|event| match event {
            Event::Acked { tag: TAG, reason } => Some(*reason),
            _ => None,
        })
        .await
    }

    /// Subscribes and waits for the reason codes, one for each filter.
    pub async fn subscribe(&mut self, filters: &[(&str, Qos)]) -> Result<Vec<u8>, ClientError> {
        let filters = filters.iter().map(|(filter, qos)| SubscribeFilter {
            filter: Text::from(*filter),
            qos: *qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
        });
        self.subscribe_with(filters.collect(), None).await
    }

    /// As [`Client::subscribe`], with v5 options.
    pub async fn subscribe_with(
        &mut self,
        filters: Vec<SubscribeFilter>,
        subscription_identifier: Option<u32>,
    ) -> Result<Vec<u8>, ClientError> {
        let id = self.links[0].flow.next_id();
        self.links[0].send(&Incoming::Subscribe { packet_id: id, filters, subscription_identifier });
        self.wait_for(|event| match event {
            Event::Subscribed { packet_id, reasons } if *packet_id == id => Some(reasons.clone()),
            _ => None,
        })
        .await
    }

    /// Unsubscribes and waits for the reason codes (none in 3.1.1).
    pub async fn unsubscribe(&mut self, filters: &[&str]) -> Result<Vec<u8>, ClientError> {
        let id = self.links[0].flow.next_id();
        let filters = filters.iter().map(|filter| Text::from(*filter)).collect();
        self.links[0].send(&Incoming::Unsubscribe { packet_id: id, filters });
        self.wait_for(|event| match event {
            Event::Unsubscribed { packet_id, reasons } if *packet_id == id => Some(reasons.clone()),
            _ => None,
        })
        .await
    }

    /// Pings and waits for the answer.
    pub async fn ping(&mut self) -> Result<(), ClientError> {
        self.links[0].send(&Incoming::PingReq);
        self.wait_for(|event| matches!(event, Event::Pong).then_some(())).await
    }

    /// Waits for the event that `pick` picks and takes it out of the queue.
    async fn wait_for<T>(&mut self, mut pick: impl FnMut(&Event) -> Option<T>) -> Result<T, ClientError> {
        let mut looked = 0;
        poll_fn(|cx| {
            loop {
                while let Some(event) = self.events.get(looked) {
                    if let Some(found) = pick(event) {
                        self.unacked -= usize::from(matches!(event, Event::Acked { .. }));
                        self.events.remove(looked);
                        return Poll::Ready(Ok(found));
                    }
                    if let Event::Disconnected { reason, text } = event {
                        return Poll::Ready(Err(ClientError::Refused { reason: *reason, text: text.clone() }));
                    }
                    looked += 1;
                }
                if !self.poll_once(cx)? {
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}
