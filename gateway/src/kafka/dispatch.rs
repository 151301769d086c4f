//! From a request to its answer: decodes by the API's guard, calls its file, encodes what it says.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_log::group::Name;
use futures_util::FutureExt;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::sync::OwnedSemaphorePermit;

use super::api::Api;
use super::guard::BadRequest;
use super::quotas::Limited;
use super::request::{Request, Unreadable};
use super::session::{self, Session};
use super::{
    Shared, alter_client_quotas, alter_configs, alter_partition_reassignments, alter_user_scram_credentials,
    api_versions, consumer_group_describe, consumer_group_heartbeat, create_acls, create_partitions, create_topics,
    delete_acls, delete_groups, delete_records, delete_topics, describe_acls, describe_client_quotas, describe_cluster,
    describe_configs, describe_groups, describe_log_dirs, describe_producers, describe_quorum,
    describe_topic_partitions, describe_user_scram_credentials, elect_leaders, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_groups, list_offsets,
    list_partition_reassignments, metadata, offset_commit, offset_delete, offset_fetch, offset_for_leader_epoch,
    produce, sasl_authenticate, sasl_handshake, sync_group,
};

/// What is to be written for one request.
#[derive(Default)]
pub(crate) struct Reply {
    /// The frame, in pieces; empty where nothing is answered.
    pub(crate) pieces: Vec<Bytes>,
    /// Door memory that these bytes hold until they are written.
    pub(crate) _memory: Vec<OwnedSemaphorePermit>,
    /// Close the connection: there is no other way to tell of the error.
    pub(crate) close: bool,
}

/// An answer that may have to be waited for; answers are written in the order of their requests.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Who sends a request.
#[derive(Debug)]
pub(crate) struct Client {
    /// What it calls itself.
    pub(crate) id: Name,
    /// Where it is, as Kafka writes it: `/10.0.0.1`.
    pub(crate) host: Name,
}

impl Client {
    fn of(request: &Request, peer: SocketAddr) -> Client {
        let id = String::from_utf8_lossy(&request.client_id);
        Client { id: Name::from(&*id), host: format!("/{}", peer.ip()).into() }
    }
}

/// Who sends a request whose bytes are counted.
pub(crate) struct Caller {
    pub(crate) session: Arc<Session>,
    /// As it came: none of it is looked at while there are no quotas.
    client_id: Bytes,
}

impl Caller {
    pub(crate) fn new(session: Arc<Session>, client_id: impl Into<Bytes>) -> Caller {
        Caller { session, client_id: client_id.into() }
    }

    /// Notes bytes against its quota; returns how long it is muted for them.
    pub(crate) fn take(&self, shared: &Shared, limited: Limited, bytes: usize) -> Duration {
        let throttle = shared.quotas.take(limited, self.session.user(), &self.client_id, bytes);
        self.session.mute(throttle);
        throttle
    }

    /// How many bytes it may have at once, if it has a quota.
    pub(crate) fn most_at_once(&self, shared: &Shared, limited: Limited) -> Option<usize> {
        shared.quotas.most_at_once(limited, self.session.user(), &self.client_id)
    }
}

/// Carries a request out. Produce, Fetch, JoinGroup and SyncGroup return with their waiting still to be done, so that further
/// requests of the connection can be read; all others are done on return.
pub(crate) async fn dispatch(
    shared: &Arc<Shared>,
    session: &Arc<Session>,
    peer: SocketAddr,
    request: Request,
    frame_memory: OwnedSemaphorePermit,
) -> Result<Pending, Unreadable> {
    let Request { api, version, correlation_id, .. } = request;
    let call = Call { request, frame_memory };
    if session.is_restricted() && !session::is_checked(api.key) {
        return Err(Unreadable::Api { key: api.key as i16 });
    }
    match api.key {
        ApiKey::Produce => {
            let caller = call.caller(session);
            let pending = produce::submit(shared, &caller, version, call.decode()?).await;
            let frame_memory = call.frame_memory;
            Ok(Box::pin(async move {
                let silent = pending.silent;
                let response = pending.finish().await;
                drop(frame_memory);
                if silent {
                    Reply { close: produce::any_refused(&response), ..Reply::default() }
                } else {
                    whole(api, version, correlation_id, &response)
                }
            }))
        }
        ApiKey::Fetch => {
            let (shared, caller) = (Arc::clone(shared), call.caller(session));
            let fetching = fetch::handle(shared, caller, version, correlation_id, call.decode()?);
            Ok(Box::pin(fetching.map(|answer| Reply { pieces: answer.pieces, _memory: answer.memory, close: false })))
        }
        ApiKey::JoinGroup => {
            let client = Client::of(&call.request, peer);
            let joining = join_group::ask(Arc::clone(shared), Arc::clone(session), version, client, call.decode()?);
            Ok(Box::pin(joining.map(move |response| whole(api, version, correlation_id, &response))))
        }
        ApiKey::SyncGroup => {
            let syncing = sync_group::ask(Arc::clone(shared), Arc::clone(session), version, call.decode()?);
            Ok(Box::pin(syncing.map(move |response| whole(api, version, correlation_id, &response))))
        }
        ApiKey::ConsumerGroupHeartbeat => {
            let client = Client::of(&call.request, peer);
            call.answer(consumer_group_heartbeat::handle(shared, session, version, client, call.decode()?).await)
        }
        ApiKey::ConsumerGroupDescribe => {
            call.answer(consumer_group_describe::handle(shared, session, version, call.decode()?).await)
        }
        ApiKey::Heartbeat => call.answer(heartbeat::handle(shared, session, call.decode()?).await),
        ApiKey::LeaveGroup => call.answer(leave_group::handle(shared, session, version, call.decode()?).await),
        ApiKey::DescribeGroups => call.answer(describe_groups::handle(shared, session, version, call.decode()?).await),
        ApiKey::ListGroups => call.answer(list_groups::handle(shared, session, version, call.decode()?).await),
        ApiKey::DeleteGroups => call.answer(delete_groups::handle(shared, session, call.decode()?).await),
        ApiKey::OffsetDelete => call.answer(offset_delete::handle(shared, session, call.decode()?).await),
        ApiKey::ListOffsets => call.answer(list_offsets::handle(shared, session, version, call.decode()?).await),
        ApiKey::Metadata => call.answer(metadata::handle(shared, session, version, call.decode()?).await),
        ApiKey::FindCoordinator => {
            call.answer(find_coordinator::handle(shared, session, version, call.decode()?).await)
        }
        ApiKey::OffsetCommit => call.answer(offset_commit::handle(shared, session, call.decode()?).await),
        ApiKey::OffsetFetch => call.answer(offset_fetch::handle(shared, session, version, call.decode()?).await),
        ApiKey::CreateTopics => call.answer(create_topics::handle(shared, session, version, call.decode()?).await),
        ApiKey::DeleteTopics => call.answer(delete_topics::handle(shared, session, version, call.decode()?).await),
        ApiKey::InitProducerId => call.answer(init_producer_id::handle(shared, session, &call.decode()?).await),
        ApiKey::DescribeConfigs => call.answer(describe_configs::handle(shared, session, call.decode()?)),
        ApiKey::IncrementalAlterConfigs => {
            call.answer(incremental_alter_configs::handle(shared, session, call.decode()?).await)
        }
        ApiKey::DescribeCluster => call.answer(describe_cluster::handle(shared, session, version, &call.decode()?)),
        ApiKey::DescribeAcls => call.answer(describe_acls::handle(shared, session, call.decode()?).await),
        ApiKey::CreateAcls => call.answer(create_acls::handle(shared, session, call.decode()?).await),
        ApiKey::DeleteAcls => call.answer(delete_acls::handle(shared, session, call.decode()?).await),
        ApiKey::DescribeClientQuotas => call.answer(describe_client_quotas::handle(shared, session, &call.decode()?)),
        ApiKey::AlterClientQuotas => call.answer(alter_client_quotas::handle(shared, session, call.decode()?).await),
        ApiKey::DescribeUserScramCredentials => {
            call.answer(describe_user_scram_credentials::handle(shared, session, call.decode()?).await)
        }
        ApiKey::AlterUserScramCredentials => {
            call.answer(alter_user_scram_credentials::handle(shared, session, call.decode()?).await)
        }
        ApiKey::SaslHandshake => call.answer(sasl_handshake::handle(shared)),
        ApiKey::SaslAuthenticate => call.answer(sasl_authenticate::handle()),
        ApiKey::OffsetForLeaderEpoch => call.answer(offset_for_leader_epoch::handle(shared, session, call.decode()?)),
        ApiKey::CreatePartitions => call.answer(create_partitions::handle(shared, session, call.decode()?).await),
        ApiKey::DeleteRecords => call.answer(delete_records::handle(shared, session, call.decode()?).await),
        ApiKey::AlterConfigs => call.answer(alter_configs::handle(shared, session, call.decode()?).await),
        ApiKey::DescribeTopicPartitions => {
            call.answer(describe_topic_partitions::handle(shared, session, &call.decode()?))
        }
        ApiKey::DescribeLogDirs => call.answer(describe_log_dirs::handle(shared, session, version, call.decode()?)),
        ApiKey::DescribeProducers => call.answer(describe_producers::handle(shared, session, call.decode()?).await),
        ApiKey::ElectLeaders => call.answer(elect_leaders::handle(shared, session, version, call.decode()?).await),
        ApiKey::AlterPartitionReassignments => {
            call.answer(alter_partition_reassignments::handle(shared, session, call.decode()?).await)
        }
        ApiKey::ListPartitionReassignments => {
            call.answer(list_partition_reassignments::handle(shared, session, &call.decode()?))
        }
        ApiKey::DescribeQuorum => call.answer(describe_quorum::handle(shared, session, version, call.decode()?).await),
        ApiKey::ApiVersions => call.answer(api_versions::answer(!call.request.unknown_version)),
        _ => Err(Unreadable::Api { key: api.key as i16 }),
    }
}

struct Call {
    request: Request,
    frame_memory: OwnedSemaphorePermit,
}

impl Call {
    fn caller(&self, session: &Arc<Session>) -> Caller {
        Caller::new(Arc::clone(session), self.request.client_id.clone())
    }

    fn decode<M: Decodable>(&self) -> Result<M, Unreadable> {
        let Request { api, version, ref body, .. } = self.request;
        let problem = |problem: BadRequest| Unreadable::Body { api: api.name, version, problem };
        api.decode(version, body.clone()).map_err(problem)
    }

    fn answer<M: Encodable>(&self, response: M) -> Result<Pending, Unreadable> {
        let Request { api, version, correlation_id, .. } = self.request;
        Ok(Box::pin(std::future::ready(whole(api, version, correlation_id, &response))))
    }
}

pub(super) fn whole<M: Encodable>(api: &'static Api, version: i16, correlation_id: i32, response: &M) -> Reply {
    match api.encode_response(version, correlation_id, response) {
        Ok(frame) => Reply { pieces: vec![frame], ..Reply::default() },
        Err(error) => {
            // A field that this version cannot carry: a mistake of ours, which the client must not wait for.
            tracing::error!(api = api.name, version, %error, "answer could not be encoded, closing the connection");
            Reply { close: true, ..Reply::default() }
        }
    }
}
