//! LeaveGroup (13), v0-5: members that go, or that an operator sends away.

use forebay_log::group::Name;
use forebay_log::group::classic::Leaver;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use kafka_protocol::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};

use super::Shared;
use super::api::Api;
use super::errors::group_error;
use super::groups::Ask;
use super::guard::{Field, Kind, Struct};
use super::session::Session;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::LeaveGroup,
    name: "LeaveGroup",
    advertised_from: 0,
    from: 0,
    to: 5,
    flexible_from: 4,
    request: &Struct {
        fields: &[
            Field::new(Kind::String),
            Field::new(Kind::String).to(2),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(Kind::String), Field::new(Kind::String), Field::new(Kind::String).from(5)],
                tags: &[],
            })))
            .from(3),
        ],
        tags: &[],
    },
};

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let response = LeaveGroupResponse::default();
    if request.group_id.is_empty() {
        return response.with_error_code(ResponseError::InvalidGroupId.code());
    }
    if let Err(denied) = session.group(Operation::Read, &request.group_id) {
        return response.with_error_code(denied.code());
    }
    let leaving = match version {
        3.. => request.members,
        _ => vec![MemberIdentity::default().with_member_id(request.member_id)],
    };
    let leavers = leaving.iter().map(|member| Leaver {
        id: Name::from(&*member.member_id),
        instance: member.group_instance_id.as_deref().map(Name::from),
    });
    let ask = |reply| Ask::Leave(leavers.collect(), reply);
    let results = match shared.groups.answer(&shared.door.log, &request.group_id, ask).await {
        Ok(results) => results,
        Err(refusal) => return response.with_error_code(refusal.code),
    };
    let codes = results.into_iter().map(|result| result.err().map_or(0, |error| group_error(error).code()));
    match version {
        3.. => {
            let member = |(member, code): (MemberIdentity, i16)| {
                MemberResponse::default()
                    .with_member_id(member.member_id)
                    .with_group_instance_id(member.group_instance_id)
                    .with_error_code(code)
            };
            response.with_members(leaving.into_iter().zip(codes).map(member).collect())
        }
        _ => response.with_error_code(codes.into_iter().next().unwrap_or(0)),
    }
}
