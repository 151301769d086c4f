//! From a request to its answer: decodes by the API's guard, calls its file, encodes what it says.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use forebay_log::group::Name;
use futures_util::FutureExt;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable};
use tokio::sync::OwnedSemaphorePermit;

use super::guard::BadRequest;
use super::request::{Request, Unreadable};
use super::{
    Shared, api_versions, consumer_group_describe, consumer_group_heartbeat, create_topics, delete_groups,
    delete_topics, describe_cluster, describe_configs, describe_groups, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_groups, list_offsets, metadata,
    offset_commit, offset_delete, offset_fetch, produce, sync_group,
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

/// Carries a request out. Produce, Fetch, JoinGroup and SyncGroup return with their waiting still to be done, so that further
/// requests of the connection can be read; all others are done on return.
pub(crate) async fn dispatch(
    shared: &Arc<Shared>,
    peer: SocketAddr,
    request: Request,
    frame_memory: OwnedSemaphorePermit,
) -> Result<Pending, Unreadable> {
    let Request { api, version, correlation_id, .. } = request;
    let call = Call { request, frame_memory };
    match api.key {
        ApiKey::Produce => {
            let pending = produce::submit(shared, version, call.decode()?).await;
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
            let fetching = fetch::handle(Arc::clone(shared), version, correlation_id, call.decode()?);
            Ok(Box::pin(fetching.map(|answer| Reply { pieces: answer.pieces, _memory: answer.memory, close: false })))
        }
        ApiKey::JoinGroup => {
            let client = Client::of(&call.request, peer);
            let joining = join_group::ask(Arc::clone(shared), version, client, call.decode()?);
            Ok(Box::pin(joining.map(move |response| whole(api, version, correlation_id, &response))))
        }
        ApiKey::SyncGroup => {
            let syncing = sync_group::ask(Arc::clone(shared), version, call.decode()?);
            Ok(Box::pin(syncing.map(move |response| whole(api, version, correlation_id, &response))))
        }
        ApiKey::ConsumerGroupHeartbeat => {
            let client = Client::of(&call.request, peer);
            call.answer(consumer_group_heartbeat::handle(shared, version, client, call.decode()?).await)
        }
        ApiKey::ConsumerGroupDescribe => {
            call.answer(consumer_group_describe::handle(shared, version, call.decode()?).await)
        }
        ApiKey::Heartbeat => call.answer(heartbeat::handle(shared, call.decode()?).await),
        ApiKey::LeaveGroup => call.answer(leave_group::handle(shared, version, call.decode()?).await),
        ApiKey::DescribeGroups => call.answer(describe_groups::handle(shared, version, call.decode()?).await),
        ApiKey::ListGroups => call.answer(list_groups::handle(shared, version, call.decode()?).await),
        ApiKey::DeleteGroups => call.answer(delete_groups::handle(shared, call.decode()?).await),
        ApiKey::OffsetDelete => call.answer(offset_delete::handle(shared, call.decode()?).await),
        ApiKey::ListOffsets => call.answer(list_offsets::handle(shared, version, call.decode()?).await),
        ApiKey::Metadata => call.answer(metadata::handle(shared, version, call.decode()?).await),
        ApiKey::FindCoordinator => call.answer(find_coordinator::handle(shared, version, call.decode()?)),
        ApiKey::OffsetCommit => call.answer(offset_commit::handle(shared, call.decode()?).await),
        ApiKey::OffsetFetch => call.answer(offset_fetch::handle(shared, version, call.decode()?).await),
        ApiKey::CreateTopics => call.answer(create_topics::handle(shared, version, call.decode()?).await),
        ApiKey::DeleteTopics => call.answer(delete_topics::handle(shared, version, call.decode()?).await),
        ApiKey::InitProducerId => call.answer(init_producer_id::handle(&call.decode()?)),
        ApiKey::DescribeConfigs => call.answer(describe_configs::handle(shared, call.decode()?)),
        ApiKey::IncrementalAlterConfigs => call.answer(incremental_alter_configs::handle(shared, call.decode()?).await),
        ApiKey::DescribeCluster => call.answer(describe_cluster::handle(shared, version, &call.decode()?)),
        ApiKey::ApiVersions => call.answer(api_versions::answer(!call.request.unknown_version)),
        _ => Err(Unreadable::Api { key: api.key as i16 }),
    }
}

struct Call {
    request: Request,
    frame_memory: OwnedSemaphorePermit,
}

impl Call {
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

fn whole<M: Encodable>(api: &'static super::api::Api, version: i16, correlation_id: i32, response: &M) -> Reply {
    match api.encode_response(version, correlation_id, response) {
        Ok(frame) => Reply { pieces: vec![frame], ..Reply::default() },
        Err(error) => {
            // A field that this version cannot carry: a mistake of ours, which the client must not wait for.
            tracing::error!(api = api.name, version, %error, "answer could not be encoded, closing the connection");
            Reply { close: true, ..Reply::default() }
        }
    }
}
