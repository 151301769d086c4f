//! DescribeGroups (15), v0-6: the state and the members of groups.

use forebay_log::group::classic::MemberRecord;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use kafka_protocol::messages::describe_groups_response::{
    DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use kafka_protocol::messages::{ApiKey, GroupId};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::groups::{Ask, Described};
use super::guard::{BOOL, Field, Kind, Struct};
use super::join_group::text;
use super::session::Session;
use super::topics::once;
use crate::security::acl::{Operation, ResourceType};

pub(crate) static API: Api = Api {
    key: ApiKey::DescribeGroups,
    name: "DescribeGroups",
    advertised_from: 0,
    from: 0,
    to: 6,
    flexible_from: 5,
    request: &Struct { fields: &[Field::new(Kind::Array(&Kind::String)), Field::new(BOOL).from(3)], tags: &[] },
};

/// First version in which a group that is not there is an error.
const MISSING_IS_AN_ERROR: i16 = 6;

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    mut request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    once(&mut request.groups, GroupId::clone);
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let described = match session.group(Operation::Describe, &group) {
            Ok(()) => shared.groups.answer(&shared.door.log, &group, Ask::Describe).await,
            Err(denied) => Err(denied.into()),
        };
        let response = match described {
            Ok(described) => whole(version, described),
            Err(refusal) if refusal.code == ResponseError::GroupIdNotFound.code() => missing(version, &group),
            Err(refusal) => DescribedGroup::default().with_error_code(refusal.code),
        };
        let response = match response.error_code == 0 && request.include_authorized_operations {
            true => response.with_authorized_operations(session.authorized_operations(ResourceType::Group, &group)),
            false => response,
        };
        groups.push(response.with_group_id(group));
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn missing(version: i16, group: &str) -> DescribedGroup {
    let dead = DescribedGroup::default().with_group_state(StrBytes::from_static_str("Dead"));
    if version < MISSING_IS_AN_ERROR {
        return dead;
    }
    let why = StrBytes::from_string(format!("there is no group {group}"));
    dead.with_error_code(ResponseError::GroupIdNotFound.code()).with_error_message(Some(why))
}

fn whole(version: i16, described: Described) -> DescribedGroup {
    let member = |member: MemberRecord| {
        let response = DescribedGroupMember::default()
            .with_member_id(text(&member.id))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment);
        match version {
            4.. => response.with_group_instance_id(member.instance.as_deref().map(text)),
            _ => response,
        }
    };
    DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(described.state))
        .with_protocol_type(text(&described.protocol_type))
        .with_protocol_data(text(&described.protocol))
        .with_members(described.members.into_iter().map(member).collect())
}
