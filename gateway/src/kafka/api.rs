//! The APIs that are served: what ApiVersions advertises, and the schema that guards each request.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::guard::{self, BadRequest, Struct};
use super::{
    alter_client_quotas, alter_configs, alter_partition_reassignments, alter_user_scram_credentials, api_versions,
    consumer_group_describe, consumer_group_heartbeat, create_acls, create_partitions, create_topics, delete_acls,
    delete_groups, delete_records, delete_topics, describe_acls, describe_client_quotas, describe_cluster,
    describe_configs, describe_groups, describe_log_dirs, describe_producers, describe_quorum,
    describe_topic_partitions, describe_user_scram_credentials, elect_leaders, fetch, find_coordinator, heartbeat,
    incremental_alter_configs, init_producer_id, join_group, leave_group, list_groups, list_offsets,
    list_partition_reassignments, metadata, offset_commit, offset_delete, offset_fetch, offset_for_leader_epoch,
    produce, sasl_authenticate, sasl_handshake, sync_group,
};

/// One API: its key, its versions and the shape of its requests.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) key: ApiKey,
    pub(crate) name: &'static str,
    /// First version that ApiVersions tells of; lower than `from` only where old clients read features from it.
    pub(crate) advertised_from: i16,
    /// First and last version that are served.
    pub(crate) from: i16,
    pub(crate) to: i16,
    /// First version with compact lengths and tagged fields (KIP-482).
    pub(crate) flexible_from: i16,
    pub(crate) request: &'static Struct,
}

impl Api {
    pub(crate) fn serves(&self, version: i16) -> bool {
        (self.from..=self.to).contains(&version)
    }
    pub(crate) fn flexible(&self, version: i16) -> bool {
        version >= self.flexible_from
    }
    /// Decodes a request body of this API, guarded.
    pub(crate) fn decode<M: Decodable>(&self, version: i16, body: Bytes) -> Result<M, BadRequest> {
        guard::decode(self.request, self.flexible(version), version, body)
    }
    /// The beginning of a response frame: four bytes for its length, then the response header.
    pub(crate) fn begin_response(&self, version: i16, correlation_id: i32, capacity: usize) -> BytesMut {
        let mut frame = BytesMut::with_capacity(capacity + 16);
        frame.put_i32(0);
        frame.put_i32(correlation_id);
        // ApiVersions answers with header v0 in every version, so that a client of unknown age can read it (KIP-511).
        if self.flexible(version) && self.key != ApiKey::ApiVersions {
            frame.put_u8(0);
        }
        frame
    }
    /// A whole response frame.
    pub(crate) fn encode_response<M: Encodable>(
        &self,
        version: i16,
        correlation_id: i32,
        response: &M,
    ) -> anyhow::Result<Bytes> {
        let mut frame = self.begin_response(version, correlation_id, response.compute_size(version)?);
        response.encode(&mut frame, version)?;
        set_length(&mut frame, 0);
        Ok(frame.freeze())
    }
}

/// Writes the length of a finished frame into its first four bytes; `more` bytes follow outside of `frame`.
pub(crate) fn set_length(frame: &mut BytesMut, more: usize) {
    let length = i32::try_from(frame.len() + more - 4).unwrap_or(i32::MAX);
    frame[..4].copy_from_slice(&length.to_be_bytes());
}

/// Every API that is served; what is not here is not advertised, and a request for it closes the connection.
pub(crate) static SERVED: [&Api; 44] = [
    &produce::API,
    &fetch::API,
    &list_offsets::API,
    &metadata::API,
    &offset_commit::API,
    &offset_fetch::API,
    &find_coordinator::API,
    &join_group::API,
    &heartbeat::API,
    &leave_group::API,
    &sync_group::API,
    &describe_groups::API,
    &list_groups::API,
    &sasl_handshake::API,
    &api_versions::API,
    &create_topics::API,
    &delete_topics::API,
    &init_producer_id::API,
    &describe_acls::API,
    &create_acls::API,
    &delete_acls::API,
    &describe_configs::API,
    &sasl_authenticate::API,
    &delete_groups::API,
    &incremental_alter_configs::API,
    &offset_delete::API,
    &describe_client_quotas::API,
    &alter_client_quotas::API,
    &describe_user_scram_credentials::API,
    &alter_user_scram_credentials::API,
    &elect_leaders::API,
    &alter_partition_reassignments::API,
    &list_partition_reassignments::API,
    &describe_quorum::API,
    &describe_cluster::API,
    &offset_for_leader_epoch::API,
    &create_partitions::API,
    &delete_records::API,
    &alter_configs::API,
    &describe_topic_partitions::API,
    &describe_log_dirs::API,
    &describe_producers::API,
    &consumer_group_heartbeat::API,
    &consumer_group_describe::API,
];

/// The served API of this key.
pub(crate) fn find(key: i16) -> Option<&'static Api> {
    SERVED.iter().copied().find(|api| api.key as i16 == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn served_versions_are_those_of_the_message_definitions() {
        for api in SERVED {
            let valid = api.key.valid_versions();
            assert!(valid.min <= api.from && api.to <= valid.max, "{}: {valid}", api.name);
            assert!(api.advertised_from <= api.from && api.from <= api.to, "{}", api.name);
            for version in api.from..=api.to {
                let flexible = api.key.request_header_version(version) == 2;
                assert_eq!(api.flexible(version), flexible, "{} v{version}", api.name);
                let response = if api.key == ApiKey::ApiVersions { 0 } else { i16::from(flexible) };
                assert_eq!(api.key.response_header_version(version), response, "{} v{version}", api.name);
            }
        }
    }

    #[test]
    fn produce_is_advertised_from_0_so_that_old_librdkafka_keeps_compression() {
        assert_eq!(find(0).map(|api| (api.advertised_from, api.from)), Some((0, 3)));
    }

    #[test]
    fn an_unserved_api_is_not_found() {
        assert!(find(i16::MAX).is_none());
        assert!(find(-1).is_none());
    }
}
