//! Heartbeat (12), v0-4: a member is alive, and learns whether it must join again.

use forebay_log::group::Name;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::heartbeat_request::HeartbeatRequest;
use kafka_protocol::messages::heartbeat_response::HeartbeatResponse;

use super::Shared;
use super::api::Api;
use super::groups::{Ask, Membership};
use super::guard::{Field, INT32, Kind, Struct};
use super::session::Session;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::Heartbeat,
    name: "Heartbeat",
    advertised_from: 0,
    from: 0,
    to: 4,
    flexible_from: 4,
    request: &Struct {
        fields: &[
            Field::new(Kind::String),
            Field::new(INT32),
            Field::new(Kind::String),
            Field::new(Kind::String).from(3),
        ],
        tags: &[],
    },
};

pub(crate) async fn handle(shared: &Shared, session: &Session, request: HeartbeatRequest) -> HeartbeatResponse {
    if request.group_id.is_empty() {
        return HeartbeatResponse::default().with_error_code(ResponseError::InvalidGroupId.code());
    }
    if let Err(denied) = session.group(Operation::Read, &request.group_id) {
        return HeartbeatResponse::default().with_error_code(denied.code());
    }
    let member = Membership {
        generation: request.generation_id,
        id: Name::from(&*request.member_id),
        instance: request.group_instance_id.as_deref().map(Name::from),
    };
    let ask = |reply| Ask::Heartbeat(member, reply);
    let result = shared.groups.answer(&shared.door.log, &request.group_id, ask).await;
    HeartbeatResponse::default().with_error_code(result.err().map_or(0, |refusal| refusal.code))
}
