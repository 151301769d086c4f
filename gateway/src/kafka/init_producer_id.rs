//! InitProducerId (22), v0-5: an id for an idempotent producer (KIP-98, KIP-360). Transactional ids are refused.
//!
//! Ids are random 63-bit numbers, so that no counter has to be made durable and no two nodes have to agree.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use kafka_protocol::messages::init_producer_id_response::InitProducerIdResponse;
use kafka_protocol::messages::{ApiKey, ProducerId};
use uuid::Uuid;

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

pub(crate) fn handle(session: &Session, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    if request.transactional_id.is_some() {
        return response.with_error_code(ResponseError::TransactionalIdAuthorizationFailed.code());
    }
    if let Err(denied) = session.idempotent_write() {
        return response.with_error_code(denied.code());
    }
    give(request, response)
}

fn give(request: &InitProducerIdRequest, response: InitProducerIdResponse) -> InitProducerIdResponse {
    // A producer that asks to go on with its id gets the next epoch; one that has used up the epochs gets a new id.
    let (id, epoch) = match (request.producer_id.0, request.producer_epoch) {
        (id, epoch) if id >= 0 && (0..i16::MAX - 1).contains(&epoch) => (id, epoch + 1),
        _ => (new_id(), 0),
    };
    response.with_producer_id(ProducerId(id)).with_producer_epoch(epoch)
}

fn new_id() -> i64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // The version and variant bits of a UUID are fixed: fold the halves so that every bit is random.
    ((high ^ low.rotate_left(32)) >> 1) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_new_producer_gets_its_own_id_and_epoch_0() {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_producer_id(ProducerId(-1));
        let give = || give(&request, InitProducerIdResponse::default());
        let (a, b) = (give(), give());
        assert_eq!((a.error_code, a.producer_epoch), (0, 0));
        assert!(a.producer_id.0 >= 0 && a.producer_id != b.producer_id);
    }

    #[test]
    fn a_producer_that_recovers_keeps_its_id_with_the_next_epoch() {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(77))
            .with_producer_epoch(4);
        let answer = give(&request, InitProducerIdResponse::default());
        assert_eq!((answer.producer_id.0, answer.producer_epoch), (77, 5));
    }
}
