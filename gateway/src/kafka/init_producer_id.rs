//! InitProducerId (22), v0-5: an id for an idempotent producer (KIP-98, KIP-360). Transactional ids are refused.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use kafka_protocol::messages::init_producer_id_response::InitProducerIdResponse;
use kafka_protocol::messages::{ApiKey, ProducerId};

use super::Shared;
use super::api::Api;
use super::guard::{Field, INT16, INT32, INT64, Kind, Struct};
use super::session::Session;

pub(crate) static API: Api = Api {
    key: ApiKey::InitProducerId,
    name: "InitProducerId",
    advertised_from: 0,
    from: 0,
    to: 5,
    flexible_from: 2,
    request: &Struct {
        fields: &[Field::new(Kind::String), Field::new(INT32), Field::new(INT64).from(3), Field::new(INT16).from(3)],
        tags: &[],
    },
};

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    if request.transactional_id.is_some() {
        return response.with_error_code(ResponseError::TransactionalIdAuthorizationFailed.code());
    }
    if let Err(denied) = session.idempotent_write() {
        return response.with_error_code(denied.code());
    }
    if let Some((id, epoch)) = goes_on(request) {
        return response.with_producer_id(id).with_producer_epoch(epoch);
    }
    match shared.producer_ids.next(&shared.door.log).await {
        Ok(id) => response.with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(error) => {
            tracing::debug!(%error, "no producer id");
            // As Kafka: the client waits a little and asks again.
            response.with_error_code(ResponseError::CoordinatorLoadInProgress.code())
        }
    }
}

/// A producer that asks to go on with its id gets the next epoch; one that has used up the epochs gets a new id.
fn goes_on(request: &InitProducerIdRequest) -> Option<(ProducerId, i16)> {
    let (id, epoch) = (request.producer_id, request.producer_epoch);
    (id.0 >= 0 && (0..i16::MAX - 1).contains(&epoch)).then(|| (id, epoch + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_that_recovers_keeps_its_id_with_the_next_epoch() {
        let request = InitProducerIdRequest::default().with_producer_id(ProducerId(77)).with_producer_epoch(4);
        assert_eq!(goes_on(&request), Some((ProducerId(77), 5)));
        for (id, epoch) in [(-1, -1), (77, -1), (77, i16::MAX - 1)] {
            let request = request.clone().with_producer_id(ProducerId(id)).with_producer_epoch(epoch);
            assert_eq!(goes_on(&request), None);
        }
    }
}
