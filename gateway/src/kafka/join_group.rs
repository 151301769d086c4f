//! JoinGroup (11), v0-9: a consumer becomes a member of its group; answered when all members of the generation have come.

use std::sync::Arc;

use forebay_log::group::Name;
use forebay_log::group::classic::{Join, Joined, JoinedMember};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::join_group_request::JoinGroupRequest;
use kafka_protocol::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Shared;
use super::api::Api;
use super::dispatch::Client;
use super::errors::group_error;
use super::groups::{Answer, Ask};
use super::guard::{Field, INT32, Kind, Struct};
use super::session::Session;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::JoinGroup,
    name: "JoinGroup",
    advertised_from: 0,
    from: 0,
    to: 9,
    flexible_from: 6,
    request: &Struct {
        fields: &[
            Field::new(Kind::String),
            Field::new(INT32),
            Field::new(INT32).from(1),
            Field::new(Kind::String),
            Field::new(Kind::String).from(5),
            Field::new(Kind::String),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(Kind::String), Field::new(Kind::Bytes)],
                tags: &[],
            }))),
            Field::new(Kind::String).from(8),
        ],
        tags: &[],
    },
};

/// First version in which a member takes its id before it joins (KIP-394).
const TAKES_ID_FIRST: i16 = 4;
/// First version in which the answer names the protocol type (KIP-559), and may say that the assignments hold (KIP-814).
const NAMES_TYPE: i16 = 7;
const MAY_SKIP: i16 = 9;

/// Asks the coordinator; the answer may be long in coming.
pub(crate) async fn ask(
    shared: Arc<Shared>,
    session: Arc<Session>,
    version: i16,
    client: Client,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let id = request.member_id.clone();
    if request.group_id.is_empty() {
        return refused(version, ResponseError::InvalidGroupId, &id);
    }
    if let Err(denied) = session.group(Operation::Read, &request.group_id) {
        return refused(version, denied, &id);
    }
    let (to, answer) = oneshot::channel();
    let prefix = request.group_instance_id.as_deref().unwrap_or(&client.id);
    let session_timeout = i64::from(request.session_timeout_ms);
    let join = Join {
        to,
        new_id: format!("{prefix}-{}", Uuid::new_v4()).into(),
        id: Name::from(&*request.member_id),
        instance: request.group_instance_id.as_deref().map(Name::from),
        client_id: client.id,
        client_host: client.host,
        session_timeout,
        rebalance_timeout: if version >= 1 { i64::from(request.rebalance_timeout_ms).max(0) } else { session_timeout },
        protocol_type: Name::from(&*request.protocol_type),
        protocols: request.protocols.into_iter().map(|p| (Name::from(&*p.name), p.metadata)).collect(),
        takes_id_first: version >= TAKES_ID_FIRST,
        may_skip_assignment: version >= MAY_SKIP,
    };
    if let Err(refusal) = shared.groups.ask(&shared.door.log, &request.group_id, Ask::Join(join)).await {
        return refused(version, ResponseError::CoordinatorNotAvailable, &id).with_error_code(refusal.code);
    }
    match answer.await {
        Ok(Answer::Joined(id, Ok(joined))) => accepted(version, &id, joined),
        Ok(Answer::Joined(id, Err(error))) => refused(version, group_error(error), &id),
        // The node shuts down.
        Ok(Answer::Synced(_)) | Err(_) => refused(version, ResponseError::NotCoordinator, &id),
    }
}

fn accepted(version: i16, id: &str, joined: Joined) -> JoinGroupResponse {
    let member = |JoinedMember { id, instance, metadata }| {
        let member = JoinGroupResponseMember::default().with_member_id(text(&id)).with_metadata(metadata);
        if version >= 5 { member.with_group_instance_id(instance.as_deref().map(text)) } else { member }
    };
    let response = JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(text(&joined.protocol)))
        .with_leader(text(&joined.leader))
        .with_member_id(text(id))
        .with_members(joined.members.into_iter().map(member).collect());
    let response = match version {
        NAMES_TYPE.. => response.with_protocol_type(joined.protocol_type.as_deref().map(text)),
        _ => response,
    };
    if version >= MAY_SKIP { response.with_skip_assignment(joined.skip_assignment) } else { response }
}

fn refused(version: i16, error: ResponseError, id: &str) -> JoinGroupResponse {
    // Before v7 the name may not be null.
    let protocol = (version < NAMES_TYPE).then(StrBytes::default);
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_protocol_name(protocol)
        .with_member_id(text(id))
}

pub(super) fn text(name: &str) -> StrBytes {
    StrBytes::from_string(name.to_owned())
}
