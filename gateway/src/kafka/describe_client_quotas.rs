//! DescribeClientQuotas (48), v0-1: there are no client quotas to tell of. kafka-configs asks for them before it describes users
//! (KIP-546).

use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::describe_client_quotas_response::DescribeClientQuotasResponse;
use kafka_protocol::protocol::StrBytes;

use super::api::Api;
use super::errors::Refusal;
use super::guard::{BOOL, Field, INT8, Kind, Struct};
use super::session::Session;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::DescribeClientQuotas,
    name: "DescribeClientQuotas",
    advertised_from: 0,
    from: 0,
    to: 1,
    flexible_from: 1,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(Kind::String), Field::new(INT8), Field::new(Kind::String)],
                tags: &[],
            }))),
            Field::new(BOOL),
        ],
        tags: &[],
    },
};

pub(crate) fn handle(session: &Session) -> DescribeClientQuotasResponse {
    let response = DescribeClientQuotasResponse::default();
    match session.cluster(Operation::DescribeConfigs).map_err(Refusal::from) {
        Ok(()) => response.with_error_message(None).with_entries(Some(Vec::new())),
        Err(Refusal { code, message }) => {
            response.with_error_code(code).with_error_message(message.map(StrBytes::from_string)).with_entries(None)
        }
    }
}
