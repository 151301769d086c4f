//! FindCoordinator (10), v0-6: which node coordinates a group.
//!
//! Transactions are not served; their coordinator is refused. librdkafka takes the presence of this API as the sign
//! that a broker understands LZ4.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use kafka_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::brokers::{Broker, Brokers, NOBODY};
use super::errors::Refusal;
use super::guard::{Field, INT8, Kind, Struct};
use super::session::Session;
use crate::security::acl::Operation;

/// `key_type` of a consumer group.
const GROUP: i8 = 0;

pub(crate) static API: Api = Api {
    key: ApiKey::FindCoordinator,
    name: "FindCoordinator",
    advertised_from: 0,
    from: 0,
    to: 6,
    flexible_from: 3,
    request: &Struct {
        fields: &[
            Field::new(Kind::String).to(3),
            Field::new(INT8).from(1),
            Field::new(Kind::Array(&Kind::String)).from(4),
        ],
        tags: &[],
    },
};

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let log = &shared.door.log;
    let brokers = Brokers::of(log);
    let find = async |key: &str| match request.key_type {
        GROUP => {
            session.group(Operation::Describe, key)?;
            let node = shared.groups.coordinator(log, key).await.and_then(|id| brokers.find(id));
            node.ok_or_else(|| Refusal::from(ResponseError::CoordinatorNotAvailable))
        }
        _ => {
            let why = "transactions are not served";
            Err(Refusal::new(ResponseError::TransactionalIdAuthorizationFailed, why))
        }
    };
    if version < 4 {
        let response = FindCoordinatorResponse::default();
        return match find(&request.key).await {
            Ok(Broker { id, host, port, .. }) => response.with_node_id(id).with_host(host).with_port(port),
            Err(Refusal { code, message }) => response
                .with_error_code(code)
                .with_error_message(message.map(StrBytes::from_string))
                .with_node_id(NOBODY)
                .with_port(-1),
        };
    }
    let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
    for key in &request.coordinator_keys {
        let coordinator = Coordinator::default().with_key(key.clone());
        coordinators.push(match find(key).await {
            Ok(Broker { id, host, port, .. }) => coordinator.with_node_id(id).with_host(host).with_port(port),
            Err(Refusal { code, message }) => coordinator
                .with_error_code(code)
                .with_error_message(message.map(StrBytes::from_string))
                .with_node_id(NOBODY)
                .with_port(-1),
        });
    }
    FindCoordinatorResponse::default().with_coordinators(coordinators)
}
