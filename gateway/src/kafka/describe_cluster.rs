//! DescribeCluster (60), v0-2: the nodes of the cluster.

use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use kafka_protocol::messages::describe_cluster_response::{DescribeClusterBroker, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::brokers::Brokers;
use super::guard::{BOOL, Field, INT8, Struct};
use super::session::Session;

pub(crate) static API: Api = Api {
    key: ApiKey::DescribeCluster,
    name: "DescribeCluster",
    advertised_from: 0,
    from: 0,
    to: 2,
    flexible_from: 0,
    request: &Struct { fields: &[Field::new(BOOL), Field::new(INT8).from(1), Field::new(BOOL).from(2)], tags: &[] },
};

pub(crate) fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let up = Brokers::of(&shared.door.log);
    let brokers = up.all().map(|broker| {
        let shown = DescribeClusterBroker::default().with_broker_id(broker.id).with_rack(broker.rack);
        shown.with_host(broker.host).with_port(broker.port)
    });
    let response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(shared.door.log.cluster_id()))
        .with_controller_id(up.controller)
        .with_brokers(brokers.collect());
    let response = match request.include_cluster_authorized_operations {
        true => response.with_cluster_authorized_operations(session.operations_on_cluster()),
        false => response,
    };
    if version >= 1 { response.with_endpoint_type(request.endpoint_type) } else { response }
}
