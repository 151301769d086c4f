//! Who a connection belongs to, and what it may do: every handler asks its session before it acts.
//!
//! The operations are those that Kafka's brokers ask for (KIP-11 and each API's own KIP), the codes those they answer with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use tokio::time::Instant;

use super::Shared;
use super::limits::LOG_LINES;
use crate::log_limit::LogLimit;
use crate::security::ANONYMOUS;
use crate::security::acl::{CLUSTER_NAME, Operation, ResourceType};

static DENIED: LogLimit = LogLimit::new(LOG_LINES);

/// The APIs whose handlers ask the session, or that are for everybody. Under ACLs no other one is served: a new API is added here
/// together with its checks (and to the test of denials in `tests/denied.rs`).
const CHECKED: &[ApiKey] = &[
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::Metadata,
    ApiKey::OffsetCommit,
    ApiKey::OffsetFetch,
    ApiKey::FindCoordinator,
    ApiKey::JoinGroup,
    ApiKey::Heartbeat,
    ApiKey::LeaveGroup,
    ApiKey::SyncGroup,
    ApiKey::DescribeGroups,
    ApiKey::ListGroups,
    ApiKey::SaslHandshake,
    ApiKey::ApiVersions,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::InitProducerId,
    ApiKey::DescribeAcls,
    ApiKey::CreateAcls,
    ApiKey::DeleteAcls,
    ApiKey::DescribeConfigs,
    ApiKey::SaslAuthenticate,
    ApiKey::DeleteGroups,
    ApiKey::IncrementalAlterConfigs,
    ApiKey::OffsetDelete,
    ApiKey::DescribeClientQuotas,
    ApiKey::DescribeUserScramCredentials,
    ApiKey::AlterUserScramCredentials,
    ApiKey::DescribeCluster,
    ApiKey::OffsetForLeaderEpoch,
    ApiKey::CreatePartitions,
    ApiKey::DeleteRecords,
    ApiKey::AlterConfigs,
    ApiKey::DescribeTopicPartitions,
    ApiKey::DescribeLogDirs,
    ApiKey::DescribeProducers,
    ApiKey::AlterClientQuotas,
    ApiKey::ConsumerGroupHeartbeat,
    ApiKey::ConsumerGroupDescribe,
    ApiKey::ElectLeaders,
    ApiKey::AlterPartitionReassignments,
    ApiKey::ListPartitionReassignments,
    ApiKey::DescribeQuorum,
];

/// Whether an API may be served where ACLs are asked.
pub(crate) fn is_checked(api: ApiKey) -> bool {
    CHECKED.contains(&api)
}

/// Who sends the requests of a connection.
pub(crate) struct Session {
    /// `User:alice`
    principal: String,
    /// Its address, as ACLs have it.
    host: String,
    /// `None` where there is nothing to ask: without ACLs, and for super users.
    rules: Option<Arc<Shared>>,
    began: Instant,
    /// Until when nothing more is read from it, in milliseconds since it began (KIP-219).
    muted_until: AtomicU64,
}

impl Session {
    /// `principal`: `None` for who does not say who it is.
    pub(crate) fn new(shared: &Arc<Shared>, peer: SocketAddr, principal: Option<String>) -> Session {
        let security = &shared.door.security;
        let principal = principal.unwrap_or_else(|| ANONYMOUS.to_owned());
        let asks = security.authorizes() && !security.is_super_user(&principal);
        let rules = asks.then(|| Arc::clone(shared));
        Session {
            principal,
            host: peer.ip().to_canonical().to_string(),
            rules,
            began: Instant::now(),
            muted_until: AtomicU64::new(0),
        }
    }

    /// `User:alice`
    pub(crate) fn principal(&self) -> &str {
        &self.principal
    }

    /// The name that quotas know it by.
    pub(crate) fn user(&self) -> &str {
        self.principal.strip_prefix("User:").unwrap_or(&self.principal)
    }

    /// It has used up its quota: nothing more is read from it for so long.
    pub(crate) fn mute(&self, throttle: Duration) {
        if throttle > Duration::ZERO {
            let until = self.began.elapsed() + throttle;
            self.muted_until.fetch_max(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// How long it is still muted.
    pub(crate) fn muted(&self) -> Duration {
        match self.muted_until.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            until => Duration::from_millis(until).saturating_sub(self.began.elapsed()),
        }
    }

    /// Whether there is anything that it may not do.
    pub(crate) fn is_restricted(&self) -> bool {
        self.rules.is_some()
    }

    /// Whether it may do this, without a word if not: for lists that leave out what it may not see.
    pub(crate) fn allows(&self, operation: Operation, of: ResourceType, name: &str) -> bool {
        match &self.rules {
            None => true,
            Some(shared) => shared.door.security.authorize(&self.principal, &self.host, operation, of, name),
        }
    }

    /// Whether it may do this; that it may not is counted and logged.
    pub(crate) fn authorize(&self, operation: Operation, of: ResourceType, name: &str) -> bool {
        let allowed = self.allows(operation, of, name);
        if !allowed {
            self.denied(operation, of, name);
        }
        allowed
    }

    fn denied(&self, operation: Operation, of: ResourceType, name: &str) {
        let Some(shared) = &self.rules else { return };
        shared.door.metrics.kafka.authorizations_denied.inc();
        if let Some(suppressed) = DENIED.admit() {
            let (principal, host) = (&self.principal, &self.host);
            let (operation, resource) = (operation.name(), of.name());
            tracing::info!(principal, host, operation, resource, name, suppressed, "denied by the ACLs");
        }
    }

    /// Whether it may do this to a topic.
    ///
    /// # Errors
    /// It may not.
    pub(crate) fn topic(&self, operation: Operation, name: &str) -> Result<(), ResponseError> {
        let allowed = self.authorize(operation, ResourceType::Topic, name);
        if allowed { Ok(()) } else { Err(ResponseError::TopicAuthorizationFailed) }
    }

    /// Whether it may do this to a consumer group.
    ///
    /// # Errors
    /// It may not.
    pub(crate) fn group(&self, operation: Operation, name: &str) -> Result<(), ResponseError> {
        let allowed = self.authorize(operation, ResourceType::Group, name);
        if allowed { Ok(()) } else { Err(ResponseError::GroupAuthorizationFailed) }
    }

    /// Whether it may do this to the cluster.
    ///
    /// # Errors
    /// It may not.
    pub(crate) fn cluster(&self, operation: Operation) -> Result<(), ResponseError> {
        let allowed = self.authorize(operation, ResourceType::Cluster, CLUSTER_NAME);
        if allowed { Ok(()) } else { Err(ResponseError::ClusterAuthorizationFailed) }
    }

    /// Whether it may get producer ids: who may write to any topic may.
    ///
    /// # Errors
    /// It may not.
    pub(crate) fn idempotent_write(&self) -> Result<(), ResponseError> {
        let Some(shared) = &self.rules else { return Ok(()) };
        let security = &shared.door.security;
        let (operation, of) = (Operation::IdempotentWrite, ResourceType::Cluster);
        let allowed = self.allows(operation, of, CLUSTER_NAME)
            || security.authorize_some(&self.principal, &self.host, Operation::Write, ResourceType::Topic);
        if allowed {
            return Ok(());
        }
        self.denied(operation, of, CLUSTER_NAME);
        Err(ResponseError::ClusterAuthorizationFailed)
    }

    /// All that it may do to a resource, as bits (KIP-430).
    pub(crate) fn authorized_operations(&self, of: ResourceType, name: &str) -> i32 {
        let allowed = of.operations().iter().filter(|operation| self.allows(**operation, of, name));
        allowed.fold(0, |bits, operation| bits | 1 << operation.code())
    }

    /// As [`Session::authorized_operations`] of the cluster; nothing to who may not describe it.
    pub(crate) fn operations_on_cluster(&self) -> i32 {
        match self.cluster(Operation::Describe) {
            Ok(()) => self.authorized_operations(ResourceType::Cluster, CLUSTER_NAME),
            Err(_) => 0,
        }
    }
}
