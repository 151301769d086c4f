//! SaslAuthenticate (36), v0-2: one step of a login (KIP-152). A session never ends, so nobody has to log in again (KIP-368).
//!
//! Requests come here after the login only, or where there is none; the login itself is in `authentication`.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::sasl_authenticate_response::SaslAuthenticateResponse;
use kafka_protocol::protocol::StrBytes;

use super::api::Api;
use super::guard::{Field, Kind, Struct};

pub(crate) static API: Api = Api {
    key: ApiKey::SaslAuthenticate,
    name: "SaslAuthenticate",
    advertised_from: 0,
    from: 0,
    to: 2,
    flexible_from: 2,
    request: &Struct { fields: &[Field::new(Kind::Bytes)], tags: &[] },
};

pub(crate) fn handle() -> SaslAuthenticateResponse {
    refused(ResponseError::IllegalSaslState, "SaslAuthenticate outside of a login")
}

pub(super) fn refused(error: ResponseError, why: &str) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse::default()
        .with_error_code(error.code())
        .with_error_message(Some(StrBytes::from_string(why.to_owned())))
}

pub(super) fn accepted(token: Bytes) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse::default().with_error_message(None).with_auth_bytes(token)
}
