//! ListGroups (16), v0-5: all groups that have members or offsets.

use kafka_protocol::messages::list_groups_request::ListGroupsRequest;
use kafka_protocol::messages::list_groups_response::{ListGroupsResponse, ListedGroup};
use kafka_protocol::messages::{ApiKey, GroupId};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::guard::{Field, Kind, Struct};
use super::join_group::text;
use super::session::Session;
use crate::security::acl::{CLUSTER_NAME, Operation, ResourceType};

pub(crate) static API: Api = Api {
    key: ApiKey::ListGroups,
    name: "ListGroups",
    advertised_from: 0,
    from: 0,
    to: 5,
    flexible_from: 3,
    request: &Struct {
        fields: &[Field::new(Kind::Array(&Kind::String)).from(4), Field::new(Kind::Array(&Kind::String)).from(5)],
        tags: &[],
    },
};

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let listed = match shared.groups.list(&shared.door.log).await {
        Ok(listed) => listed,
        Err(refusal) => return ListGroupsResponse::default().with_error_code(refusal.code),
    };
    // Filters know no case.
    let passes =
        |filter: &[StrBytes], what: &str| filter.is_empty() || filter.iter().any(|f| f.eq_ignore_ascii_case(what));
    let (states, types) = (&request.states_filter, &request.types_filter);
    // Who may describe the cluster sees all groups, others those that they may describe.
    let sees_all = session.allows(Operation::Describe, ResourceType::Cluster, CLUSTER_NAME);
    let sees = |group: &str| sees_all || session.allows(Operation::Describe, ResourceType::Group, group);
    let wanted = listed.into_iter().filter(|group| passes(states, group.state) && passes(types, group.kind));
    let wanted = wanted.filter(|group| sees(&group.group));
    let groups = wanted.map(|group| {
        let response = ListedGroup::default()
            .with_group_id(GroupId(text(&group.group)))
            .with_protocol_type(text(&group.protocol_type));
        let response = match version {
            4.. => response.with_group_state(StrBytes::from_static_str(group.state)),
            _ => response,
        };
        if version >= 5 { response.with_group_type(StrBytes::from_static_str(group.kind)) } else { response }
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}
