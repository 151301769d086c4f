//! SyncGroup (14), v0-5: the leader brings who owns what, each member fetches its part; answered when that is durable.

use std::sync::Arc;

use forebay_log::group::Name;
use forebay_log::group::classic::Sync;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::sync_group_request::SyncGroupRequest;
use kafka_protocol::messages::sync_group_response::SyncGroupResponse;
use tokio::sync::oneshot;

use super::Shared;
use super::api::Api;
use super::errors::group_error;
use super::groups::{Answer, Ask};
use super::guard::{Field, INT32, Kind, Struct};
use super::join_group::text;
use super::session::Session;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::SyncGroup,
    name: "SyncGroup",
    advertised_from: 0,
    from: 0,
    to: 5,
    flexible_from: 4,
    request: &Struct {
        fields: &[
            Field::new(Kind::String),
            Field::new(INT32),
            Field::new(Kind::String),
            Field::new(Kind::String).from(3),
            Field::new(Kind::String).from(5),
            Field::new(Kind::String).from(5),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(Kind::String), Field::new(Kind::Bytes)],
                tags: &[],
            }))),
        ],
        tags: &[],
    },
};

/// First version in which both sides name what the group follows (KIP-559).
const NAMES_PROTOCOL: i16 = 5;

/// Asks the coordinator; the answer may be long in coming.
pub(crate) async fn ask(
    shared: Arc<Shared>,
    session: Arc<Session>,
    version: i16,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let refused = |error: ResponseError| SyncGroupResponse::default().with_error_code(error.code());
    if request.group_id.is_empty() {
        return refused(ResponseError::InvalidGroupId);
    }
    if let Err(denied) = session.group(Operation::Read, &request.group_id) {
        return refused(denied);
    }
    let (to, answer) = oneshot::channel();
    let sync = Sync {
        to,
        id: Name::from(&*request.member_id),
        instance: request.group_instance_id.as_deref().map(Name::from),
        generation: request.generation_id,
        protocol_type: request.protocol_type.as_deref().map(Name::from),
        protocol: request.protocol_name.as_deref().map(Name::from),
        assignments: request.assignments.into_iter().map(|a| (Name::from(&*a.member_id), a.assignment)).collect(),
    };
    if let Err(refusal) = shared.groups.ask(&shared.door.log, &request.group_id, Ask::Sync(sync)).await {
        return SyncGroupResponse::default().with_error_code(refusal.code);
    }
    match answer.await {
        Ok(Answer::Synced(Ok(synced))) => {
            let response = SyncGroupResponse::default().with_assignment(synced.assignment);
            match version {
                NAMES_PROTOCOL.. => response
                    .with_protocol_type(synced.protocol_type.as_deref().map(text))
                    .with_protocol_name(synced.protocol.as_deref().map(text)),
                _ => response,
            }
        }
        Ok(Answer::Synced(Err(error))) => refused(group_error(error)),
        // The node shuts down.
        Ok(Answer::Joined(..)) | Err(_) => refused(ResponseError::NotCoordinator),
    }
}
