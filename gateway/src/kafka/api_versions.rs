//! ApiVersions (18), v0-4: which APIs and versions this node serves.
//!
//! An unknown version is answered with a v0 body, error 35 and the whole list, so that the client can try again (KIP-511).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};

use super::api::{Api, SERVED};
use super::guard::{Field, Kind, Struct};

pub(crate) static API: Api = Api {
    key: ApiKey::ApiVersions,
    name: "ApiVersions",
    advertised_from: 0,
    from: 0,
    to: 4,
    flexible_from: 3,
    request: &Struct { fields: &[Field::new(Kind::String).from(3), Field::new(Kind::String).from(3)], tags: &[] },
};

/// The list; `supported`: whether the request's own version is served.
pub(crate) fn answer(supported: bool) -> ApiVersionsResponse {
    let keys = SERVED.iter().map(|api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.advertised_from)
            .with_max_version(api.to)
    });
    ApiVersionsResponse::default()
        .with_error_code(if supported { 0 } else { ResponseError::UnsupportedVersion.code() })
        .with_api_keys(keys.collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::Decodable;

    use super::*;

    #[test]
    fn an_unknown_version_gets_a_v0_body_with_error_35_and_the_list() {
        let frame = API.encode_response(0, 7, &answer(false)).unwrap();
        assert_eq!(i32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        assert_eq!(i32::from_be_bytes(frame[4..8].try_into().unwrap()), 7);
        let response = ApiVersionsResponse::decode(&mut frame.slice(8..), 0).unwrap();
        assert_eq!(response.error_code, 35);
        assert_eq!(response.api_keys.len(), SERVED.len());
    }

    #[test]
    fn the_response_header_has_no_tagged_fields_even_in_flexible_versions() {
        let frame = API.encode_response(3, 7, &answer(true)).unwrap();
        let response = ApiVersionsResponse::decode(&mut frame.slice(8..), 3).unwrap();
        assert_eq!(response.error_code, 0);
    }
}
