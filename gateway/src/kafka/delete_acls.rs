//! DeleteAcls (31), v1-3: removes the ACLs that filters mean, and says which those were (KIP-140, KIP-290).

use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::delete_acls_request::{DeleteAclsFilter, DeleteAclsRequest};
use kafka_protocol::messages::delete_acls_response::{
    DeleteAclsFilterResult, DeleteAclsMatchingAcl, DeleteAclsResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::acl_codes::{FILTER, WireFilter, check};
use super::api::Api;
use super::errors::Refusal;
use super::guard::{Field, Kind, Struct};
use super::limits::MAX_ACL_FILTERS;
use super::session::Session;
use crate::security::acl::{Acl, AclFilter, Operation};
use kafka_protocol::ResponseError;

pub(crate) static API: Api = Api {
    key: ApiKey::DeleteAcls,
    name: "DeleteAcls",
    advertised_from: 1,
    from: 1,
    to: 3,
    flexible_from: 2,
    request: &Struct { fields: &[Field::new(Kind::Array(&Kind::Struct(&FILTER)))], tags: &[] },
};

pub(crate) async fn handle(shared: &Shared, session: &Session, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let many = request.filters.len() > MAX_ACL_FILTERS;
    let checked = check(shared, session, Operation::Alter).and_then(|()| match many {
        true => {
            let why = format!("a request may have {MAX_ACL_FILTERS} filters at most");
            Err(Refusal::new(ResponseError::InvalidRequest, why))
        }
        false => Ok(()),
    });
    let filters: Vec<Result<AclFilter, Refusal>> = match checked {
        Ok(()) => request.filters.into_iter().map(read).collect(),
        Err(refusal) => request.filters.iter().map(|_| Err(refusal.clone())).collect(),
    };
    let valid: Vec<AclFilter> = filters.iter().filter_map(|filter| filter.as_ref().ok()).cloned().collect();
    let removed = match valid.is_empty() {
        true => Ok(Vec::new()),
        false => shared.door.security.remove_acls(valid).await.map_err(Refusal::from),
    };
    if let Ok(removed) = &removed
        && removed.iter().any(|acls| !acls.is_empty())
    {
        let acls: usize = removed.iter().map(Vec::len).sum();
        tracing::info!(acls, by = session.principal(), "ACLs deleted");
    }
    let mut removed = removed.map(Vec::into_iter);
    let results = filters.into_iter().map(|filter| {
        let outcome = match (filter, &mut removed) {
            (Err(refusal), _) => Err(refusal),
            (Ok(_), Err(refusal)) => Err(refusal.clone()),
            (Ok(_), Ok(removed)) => Ok(removed.next().unwrap_or_default()),
        };
        match outcome {
            Ok(acls) => DeleteAclsFilterResult::default()
                .with_error_message(None)
                .with_matching_acls(acls.into_iter().map(gone).collect()),
            Err(refusal) => DeleteAclsFilterResult::default()
                .with_error_code(refusal.code)
                .with_error_message(refusal.message.map(StrBytes::from_string)),
        }
    });
    DeleteAclsResponse::default().with_filter_results(results.collect())
}

fn read(filter: DeleteAclsFilter) -> Result<AclFilter, Refusal> {
    let wire = WireFilter {
        resource_type: filter.resource_type_filter,
        name: filter.resource_name_filter,
        pattern: filter.pattern_type_filter,
        principal: filter.principal_filter,
        host: filter.host_filter,
        operation: filter.operation,
        permission: filter.permission_type,
    };
    wire.read()
}

fn gone(acl: Acl) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl::default()
        .with_error_message(None)
        .with_resource_type(acl.resource_type.code())
        .with_resource_name(StrBytes::from_string(acl.name))
        .with_pattern_type(acl.pattern.code())
        .with_principal(StrBytes::from_string(acl.principal))
        .with_host(StrBytes::from_string(acl.host))
        .with_operation(acl.operation.code())
        .with_permission_type(acl.permission.code())
}
