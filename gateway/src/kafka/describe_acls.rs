//! DescribeAcls (29), v1-3: the ACLs that a filter means, by resource (KIP-140, KIP-290).

use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::describe_acls_request::DescribeAclsRequest;
use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource, DescribeAclsResponse};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::acl_codes::{FILTER, WireFilter, check};
use super::api::Api;
use super::errors::Refusal;
use super::session::Session;
use crate::security::acl::{Acl, Operation};

pub(crate) static API: Api = Api {
    key: ApiKey::DescribeAcls,
    name: "DescribeAcls",
    advertised_from: 1,
    from: 1,
    to: 3,
    flexible_from: 2,
    request: &FILTER,
};

pub(crate) async fn handle(shared: &Shared, session: &Session, request: DescribeAclsRequest) -> DescribeAclsResponse {
    match find(shared, session, request).await {
        Ok(resources) => DescribeAclsResponse::default().with_error_message(None).with_resources(resources),
        Err(refusal) => DescribeAclsResponse::default()
            .with_error_code(refusal.code)
            .with_error_message(refusal.message.map(StrBytes::from_string)),
    }
}

async fn find(
    shared: &Shared,
    session: &Session,
    request: DescribeAclsRequest,
) -> Result<Vec<DescribeAclsResource>, Refusal> {
    check(shared, session, Operation::Describe)?;
    let filter = WireFilter {
        resource_type: request.resource_type_filter,
        name: request.resource_name_filter,
        pattern: request.pattern_type_filter,
        principal: request.principal_filter,
        host: request.host_filter,
        operation: request.operation,
        permission: request.permission_type,
    };
    let mut resources: Vec<DescribeAclsResource> = Vec::new();
    // They come in the order of their resources.
    for acl in shared.door.security.acls(&filter.read()?).await? {
        let description = describe(&acl);
        match resources.last_mut().filter(|last| is_of(last, &acl)) {
            Some(resource) => resource.acls.push(description),
            None => resources.push(
                DescribeAclsResource::default()
                    .with_resource_type(acl.resource_type.code())
                    .with_resource_name(StrBytes::from_string(acl.name))
                    .with_pattern_type(acl.pattern.code())
                    .with_acls(vec![description]),
            ),
        }
    }
    Ok(resources)
}

fn is_of(resource: &DescribeAclsResource, acl: &Acl) -> bool {
    resource.resource_type == acl.resource_type.code()
        && resource.pattern_type == acl.pattern.code()
        && *resource.resource_name == *acl.name
}

fn describe(acl: &Acl) -> AclDescription {
    AclDescription::default()
        .with_principal(StrBytes::from_string(acl.principal.clone()))
        .with_host(StrBytes::from_string(acl.host.clone()))
        .with_operation(acl.operation.code())
        .with_permission_type(acl.permission.code())
}
