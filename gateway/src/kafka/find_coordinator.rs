//! FindCoordinator (10), v0-6: which node coordinates a group: this one.
//!
//! Transactions are not served; their coordinator is refused. librdkafka takes the presence of this API as the sign
//! that a broker understands LZ4.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use kafka_protocol::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use kafka_protocol::messages::{ApiKey, BrokerId};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::guard::{Field, INT8, Kind, Struct};

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

pub(crate) fn handle(shared: &Shared, version: i16, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let group = request.key_type == GROUP;
    let (host, port) = &shared.door.advertised;
    let host = StrBytes::from_string(host.clone());
    let refusal = ResponseError::TransactionalIdAuthorizationFailed.code();
    let why = StrBytes::from_static_str("transactions are not served");
    if version < 4 {
        let response = FindCoordinatorResponse::default();
        return if group {
            response.with_node_id(BrokerId(shared.node_id())).with_host(host).with_port(i32::from(*port))
        } else {
            response.with_error_code(refusal).with_error_message(Some(why)).with_node_id(BrokerId(-1)).with_port(-1)
        };
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        let coordinator = Coordinator::default().with_key(key);
        if group {
            coordinator.with_node_id(BrokerId(shared.node_id())).with_host(host.clone()).with_port(i32::from(*port))
        } else {
            coordinator
                .with_error_code(refusal)
                .with_error_message(Some(why.clone()))
                .with_node_id(BrokerId(-1))
                .with_port(-1)
        }
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}
