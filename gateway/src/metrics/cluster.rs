//! Metrics of the cluster as this node sees it, with the meanings of Kafka's, read when somebody scrapes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use forebay_cluster::{Cluster, Log, PeerCounters};
use forebay_log::cluster::{Image, Liveness, PartitionState};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio_util::sync::CancellationToken;

use crate::cluster::decides;

/// How often the followers are asked how far they are behind.
const LAG_INTERVAL: Duration = Duration::from_secs(10);

/// The furthest that a follower of what this node leads is behind, in records.
pub(super) type Lag = Arc<AtomicI64>;

/// Reads the cluster at each scrape.
pub(super) struct ClusterCollector {
    log: Log,
    lag: Lag,
}

impl ClusterCollector {
    pub(super) fn new(log: Log, lag: Lag) -> ClusterCollector {
        ClusterCollector { log, lag }
    }
}

impl fmt::Debug for ClusterCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterCollector")
    }
}

/// Looks every few seconds how far the followers are behind, until the node drains.
pub(super) async fn follow_lag(cluster: Cluster, lag: Lag, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LAG_INTERVAL) => {}
            () = shutdown.cancelled() => return,
        }
        let report = cluster.report().await;
        lag.store(report.behind.iter().map(|one| one.records).max().unwrap_or(0), Ordering::Relaxed);
    }
}

/// Name, help and value of a counter that every other node has.
type PeerCounter = (&'static str, &'static str, fn(&PeerCounters) -> &AtomicU64);

const PEER_COUNTERS: &[PeerCounter] = &[
    ("link_received_bytes", "Bytes that came from the other node", |peer| &peer.bytes_in),
    ("link_sent_bytes", "Bytes that went to the other node", |peer| &peer.bytes_out),
    ("link_requests", "Requests that went to the other node", |peer| &peer.requests_out),
    ("link_errors", "Requests to the other node that ended without an answer", |peer| &peer.errors_out),
    ("link_connects", "Connections made between this node and the other", |peer| &peer.connects),
];

impl Collector for ClusterCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(cluster) = self.log.cluster() else { return Ok(()) };
        let image = cluster.metadata().borrow().image.clone();
        let quorum = cluster.quorum();
        // Not one that takes itself for the leader and reaches nobody: what it knows stands still.
        let controls = decides(&quorum);
        let here = cluster.node();
        let led = |state: &PartitionState| state.leader == Some(here);
        // As Kafka's, what is wrong with the whole cluster is told by its controller, so that a sum over all nodes is right.
        let at_controller = |count: usize| if controls { count } else { 0 };
        let fenced = image.nodes().filter(|(_, node)| node.liveness == Liveness::Fenced).count();
        let gauges: [(&str, &str, usize); 10] = [
            (
                "partitions",
                "Partitions that have a replica on this node",
                count(&image, |s| s.replicas.contains(&here)),
            ),
            ("partition_leaders", "Partitions that this node leads", count(&image, led)),
            (
                "under_replicated_partitions",
                "Partitions led by this node with fewer in-sync replicas than replicas",
                count(&image, |state| led(state) && state.is_under_replicated()),
            ),
            (
                "reassigning_partitions",
                "Partitions led by this node whose replicas are moving",
                count(&image, |state| led(state) && state.is_reassigning()),
            ),
            (
                "offline_partitions",
                "Partitions of the cluster without a leader; 0 on nodes that are not the controller",
                at_controller(count(&image, |state| state.leader.is_none())),
            ),
            (
                "fenced_nodes",
                "Nodes of the cluster that may not lead; 0 on nodes that are not the controller",
                at_controller(fenced),
            ),
            ("active_controller", "1 on the node that decides on the cluster's metadata", usize::from(controls)),
            (
                "quorum_stopped",
                "1 when this node's part of the controller quorum has stopped: it has to be started again",
                usize::from(cluster.failure().borrow().is_some()),
            ),
            ("quorum_voters", "Nodes that vote in the controller quorum", quorum.voters.len()),
            (
                "quorum_term",
                "The term of the controller quorum: it grows with each election",
                usize::try_from(quorum.term).unwrap_or(usize::MAX),
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let help = "Records that the furthest follower of what this node leads does not have, looked up every 10 s";
        let lag = ConstGauge::new(self.lag.load(Ordering::Relaxed));
        lag.encode(encoder.encode_descriptor("replica_max_lag_records", help, None, MetricType::Gauge)?)?;

        let isr = cluster.isr_changes();
        let links = cluster.counters();
        let counters: [(&str, &str, u64); 5] = [
            ("isr_shrinks", "Times that in-sync replicas of a partition led here became fewer", read(&isr.shrinks)),
            ("isr_expands", "Times that in-sync replicas of a partition led here became more", read(&isr.expands)),
            ("forwarded_appends", "Appends sent on to leaders on other nodes", cluster.forwarded_appends()),
            (
                "link_failed_handshakes",
                "Connections that ended before a link between nodes was made of them: garbage, timeouts, TLS",
                read(&links.failed_handshakes),
            ),
            ("link_refused", "Links refused, by this node or another one", read(&links.refused)),
        ];
        for (name, help, value) in counters {
            let counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(counter)?;
        }
        let peers = links.peers();
        for (name, help, value) in PEER_COUNTERS {
            let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (node, peer) in &peers {
                let labels = [("peer", node.to_string())];
                ConstCounter::new(read(value(peer))).encode(counter.encode_family(&labels)?)?;
            }
        }
        let help = "Connections that are up between this node and the other";
        let mut connections = encoder.encode_descriptor("link_connections", help, None, MetricType::Gauge)?;
        for (node, peer) in &peers {
            let labels = [("peer", node.to_string())];
            ConstGauge::new(peer.connections.load(Ordering::Relaxed)).encode(connections.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn count(image: &Image, select: impl Fn(&PartitionState) -> bool) -> usize {
    image.partitions().filter(|(_, _, state)| select(state)).count()
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
