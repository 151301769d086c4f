//! CreateAcls (30), v1-3: adds ACLs; each is durable before the answer (KIP-140, KIP-290).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::create_acls_request::{AclCreation, CreateAclsRequest};
use kafka_protocol::messages::create_acls_response::{AclCreationResult, CreateAclsResponse};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::acl_codes::{check, unknown};
use super::api::Api;
use super::errors::Refusal;
use super::guard::{Field, INT8, Kind, Struct};
use super::session::Session;
use crate::security::acl::{Acl, CLUSTER_NAME, Operation, PatternType, Permission, ResourceType};
use crate::security::limits::MAX_NAME_BYTES;

pub(crate) static API: Api = Api {
    key: ApiKey::CreateAcls,
    name: "CreateAcls",
    advertised_from: 1,
    from: 1,
    to: 3,
    flexible_from: 2,
    request: &Struct {
        fields: &[Field::new(Kind::Array(&Kind::Struct(&Struct {
            fields: &[
                Field::new(INT8),
                Field::new(Kind::String),
                Field::new(INT8).from(1),
                Field::new(Kind::String),
                Field::new(Kind::String),
                Field::new(INT8),
                Field::new(INT8),
            ],
            tags: &[],
        })))],
        tags: &[],
    },
};

pub(crate) async fn handle(shared: &Shared, session: &Session, request: CreateAclsRequest) -> CreateAclsResponse {
    let read: Vec<Result<Acl, Refusal>> = match check(shared, session, Operation::Alter) {
        Ok(()) => request.creations.iter().map(read).collect(),
        Err(refusal) => request.creations.iter().map(|_| Err(refusal.clone())).collect(),
    };
    let valid: Vec<Acl> = read.iter().filter_map(|acl| acl.as_ref().ok()).cloned().collect();
    let added = match valid.is_empty() {
        true => Ok(Vec::new()),
        false => shared.door.security.add_acls(valid).await.map_err(Refusal::from),
    };
    if let Ok(added) = &added
        && !added.is_empty()
    {
        tracing::info!(acls = added.iter().filter(|acl| acl.is_ok()).count(), by = session.principal(), "ACLs created");
    }
    let mut added = added.map(Vec::into_iter);
    let results = read.into_iter().map(|acl| {
        let outcome = match (acl, &mut added) {
            (Err(refusal), _) => Err(refusal),
            (Ok(_), Err(refusal)) => Err(refusal.clone()),
            (Ok(_), Ok(added)) => match added.next() {
                Some(Err(full)) => Err(full.into()),
                _ => Ok(()),
            },
        };
        match outcome {
            Ok(()) => AclCreationResult::default().with_error_message(None),
            Err(refusal) => AclCreationResult::default()
                .with_error_code(refusal.code)
                .with_error_message(refusal.message.map(StrBytes::from_string)),
        }
    });
    CreateAclsResponse::default().with_results(results.collect())
}

/// What Kafka's controller accepts (`AclControlManager.validateNewAcl`).
fn read(creation: &AclCreation) -> Result<Acl, Refusal> {
    let refuse = |why: String| Err(Refusal::new(ResponseError::InvalidRequest, why));
    let acl = Acl {
        resource_type: ResourceType::from_code(creation.resource_type)
            .ok_or_else(|| unknown("resource type", creation.resource_type))?,
        name: creation.resource_name.to_string(),
        pattern: PatternType::from_code(creation.resource_pattern_type)
            .ok_or_else(|| unknown("pattern type", creation.resource_pattern_type))?,
        principal: creation.principal.to_string(),
        host: creation.host.to_string(),
        operation: Operation::from_code(creation.operation).ok_or_else(|| unknown("operation", creation.operation))?,
        permission: Permission::from_code(creation.permission_type)
            .ok_or_else(|| unknown("permission type", creation.permission_type))?,
    };
    if acl.name.is_empty() {
        return refuse("the resource has no name".to_owned());
    }
    if acl.resource_type == ResourceType::Cluster && acl.name != CLUSTER_NAME {
        return refuse(format!("the only valid name for the CLUSTER resource is {CLUSTER_NAME}"));
    }
    if acl.principal.split_once(':').is_none_or(|(kind, name)| kind.is_empty() || name.is_empty()) {
        return refuse(format!("{} is no principal: it must look like User:alice", acl.principal));
    }
    if acl.host.is_empty() {
        return refuse("the ACL has no host: write an address, or * for all".to_owned());
    }
    if [&acl.name, &acl.principal, &acl.host].iter().any(|text| text.len() > MAX_NAME_BYTES) {
        return refuse(format!("a name is longer than {MAX_NAME_BYTES} bytes"));
    }
    Ok(acl)
}
