//! Takes the node into its cluster, which may be a cluster of one, and waits until it counts there.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use forebay_cluster::{Cluster, Files, LocalLog, Log, Options, parse_kafka_id};
use forebay_log::NodeId;
use tokio::net::TcpListener;

use super::Addresses;
use crate::cluster_tls::LinkTls;
use crate::config::Config;

/// How often a node says that it waits for the others.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Starts the node's part of the cluster and returns the log that the cluster holds together. `local` is what lies on this node.
///
/// # Errors
/// What is stored of the cluster here cannot be used, or the quorum has stopped.
pub(super) async fn join(
    config: &Config,
    addresses: &Addresses,
    listener: Option<TcpListener>,
    tls: Option<LinkTls>,
    files: Arc<dyn Files>,
    local: LocalLog,
) -> anyhow::Result<Log> {
    let node = NodeId(i32::try_from(config.node.id).unwrap_or(i32::MAX));
    let cluster = &config.cluster;
    let mut voters: BTreeMap<NodeId, String> =
        cluster.peers.iter().map(|(id, address)| (NodeId(*id), address.clone())).collect();
    if voters.is_empty() {
        voters.insert(node, String::new());
    }
    let (server_tls, client_tls) = tls.map(|tls| (tls.server, tls.client)).unzip();
    let options = Options {
        voters,
        addresses: reachable(config, addresses),
        rack: cluster.rack.clone(),
        listener,
        server_tls,
        client_tls,
        catch_up_rate: cluster.catch_up_rate,
        replica_lag_time_max_ms: cluster.replica_lag_time_max_ms,
        new_cluster: parse_kafka_id(&local.cluster_id()).unwrap_or_else(uuid::Uuid::new_v4),
        ..Options::alone(node)
    };
    let part = Cluster::start(options, files, local.clone()).await.context("this node's part of the cluster")?;
    takes_part(&part, config).await?;
    Ok(Log::of_cluster(local, part, cluster.default_replication_factor))
}

/// Waits until the node may lead and be in sync, and until the partitions here have their roles: before, what lies above the last
/// checkpoint of the high watermark is not seen.
async fn takes_part(part: &Cluster, config: &Config) -> anyhow::Result<()> {
    let ended = || anyhow!("the node's part of the cluster has ended");
    let taken = async {
        part.standing().wait_for(|standing| standing.active).await.map_err(|_| ended())?;
        let version = part.metadata().borrow().image.version().0;
        part.applied().wait_for(|applied| *applied >= version).await.map_err(|_| ended())?;
        Ok(())
    };
    let mut taken = pin!(taken);
    let mut failure = part.failure();
    loop {
        tokio::select! {
            taken = &mut taken => return taken,
            failed = failure.wait_for(Option::is_some) => {
                let why = failed.ok().and_then(|failed| failed.as_ref().map(ToString::to_string)).unwrap_or_default();
                return Err(anyhow!(why).context("the controller quorum has stopped on this node"));
            }
            () = tokio::time::sleep(SAY_AGAIN) => say_what_is_missing(part, config),
        }
    }
}

fn say_what_is_missing(part: &Cluster, config: &Config) {
    let (version, applied) = (part.metadata().borrow().image.version().0, *part.applied().borrow());
    match part.quorum().leader {
        None => {
            let peers: Vec<String> = config.cluster.peers.iter().map(|(id, at)| format!("{id}@{at}")).collect();
            tracing::warn!(peers = peers.join(","), "waiting for a majority of the cluster's nodes");
        }
        Some(controller) if applied < version => {
            tracing::warn!(controller, version, applied, "waiting for partitions on this node to take their roles");
        }
        Some(controller) => {
            let active = part.standing().borrow().active;
            tracing::warn!(controller, active, version, "waiting for the controller to let this node take part");
        }
    }
}

/// Where others and clients reach this node, by the listener's name.
fn reachable(config: &Config, addresses: &Addresses) -> BTreeMap<String, String> {
    let host = &config.node.advertised_host;
    let mut reachable: BTreeMap<String, String> =
        addresses.list().into_iter().map(|(name, at)| (name.to_owned(), format!("{host}:{}", at.port()))).collect();
    if let Some(advertised) = &config.cluster.advertised {
        reachable.insert("cluster".to_owned(), advertised.clone());
    }
    reachable
}
