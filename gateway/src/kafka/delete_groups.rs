//! DeleteGroups (42), v0-2: takes groups without members away, with their offsets.

use kafka_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use kafka_protocol::messages::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponse};
use kafka_protocol::messages::{ApiKey, GroupId};

use super::Shared;
use super::api::Api;
use super::groups::Ask;
use super::guard::{Field, Kind, Struct};
use super::session::Session;
use super::topics::once;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::DeleteGroups,
    name: "DeleteGroups",
    advertised_from: 0,
    from: 0,
    to: 2,
    flexible_from: 2,
    request: &Struct { fields: &[Field::new(Kind::Array(&Kind::String))], tags: &[] },
};

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    mut request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    once(&mut request.groups_names, GroupId::clone);
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group in request.groups_names {
        let result = match session.group(Operation::Delete, &group) {
            Ok(()) => shared.groups.answer(&shared.door.log, &group, Ask::Delete).await,
            Err(denied) => Err(denied.into()),
        };
        let code = result.err().map_or(0, |refusal| refusal.code);
        results.push(DeletableGroupResult::default().with_group_id(group).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}
