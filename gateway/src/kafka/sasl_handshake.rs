//! SaslHandshake (17), v0-1: a client names the mechanism with which it logs in (KIP-43).
//!
//! Requests come here after the login only, or where there is none; the login itself is in `authentication`.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::sasl_handshake_response::SaslHandshakeResponse;
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::guard::{Field, Kind, Struct};

pub(crate) static API: Api = Api {
    key: ApiKey::SaslHandshake,
    name: "SaslHandshake",
    advertised_from: 0,
    from: 0,
    to: 1,
    flexible_from: i16::MAX,
    request: &Struct { fields: &[Field::new(Kind::String)], tags: &[] },
};

pub(crate) fn handle(shared: &Shared) -> SaslHandshakeResponse {
    answer(shared, Some(ResponseError::IllegalSaslState))
}

pub(super) fn answer(shared: &Shared, error: Option<ResponseError>) -> SaslHandshakeResponse {
    let mechanisms = shared.door.security.mechanisms().iter();
    SaslHandshakeResponse::default()
        .with_error_code(error.map_or(0, |error| error.code()))
        .with_mechanisms(mechanisms.map(|mechanism| StrBytes::from_static_str(mechanism.name())).collect())
}
