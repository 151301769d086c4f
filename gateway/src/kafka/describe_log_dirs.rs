//! DescribeLogDirs (35), v1-4: what partitions take on the local disk, and how much room it has (KIP-113, KIP-827).

use std::collections::{BTreeMap, BTreeSet};

use forebay_cluster::Topic;
use kafka_protocol::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::guard::{Field, Kind, Struct, TOPIC_PARTITIONS};
use super::session::Session;
use super::topics::topic_name;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::DescribeLogDirs,
    name: "DescribeLogDirs",
    advertised_from: 1,
    from: 1,
    to: 4,
    flexible_from: 2,
    request: &Struct { fields: &[Field::new(Kind::Array(&Kind::Struct(&TOPIC_PARTITIONS)))], tags: &[] },
};

pub(crate) fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    if let Err(denied) = session.cluster(Operation::Describe) {
        let response = DescribeLogDirsResponse::default();
        return if version >= 3 { response.with_error_code(denied.code()) } else { response };
    }
    let log = &shared.door.log;
    let topics: Vec<DescribeLogDirsTopic> = match request.topics {
        None => log.topics().values().map(|topic| describe(topic, |_| true)).collect(),
        Some(asked) => {
            // A topic may be named more than once.
            let mut indexes: BTreeMap<TopicName, BTreeSet<i32>> = BTreeMap::new();
            for topic in asked {
                indexes.entry(topic.topic).or_default().extend(topic.partitions);
            }
            let found = indexes.iter().filter_map(|(name, indexes)| Some((log.topic(name)?, indexes)));
            found.map(|(topic, indexes)| describe(&topic, |index| indexes.contains(&index))).collect()
        }
    };
    let dir = std::path::absolute(&shared.door.config.node.data_dir).unwrap_or_default().join("log");
    let result = DescribeLogDirsResult::default()
        .with_topics(topics)
        .with_log_dir(StrBytes::from_string(dir.display().to_string()));
    let result = match rustix::fs::statvfs(&dir) {
        Ok(disk) if version >= 4 => {
            let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(disk.f_frsize)).unwrap_or(i64::MAX);
            result.with_total_bytes(bytes(disk.f_blocks)).with_usable_bytes(bytes(disk.f_bavail))
        }
        _ => result,
    };
    DescribeLogDirsResponse::default().with_results(vec![result])
}

fn describe(topic: &Topic, wanted: impl Fn(i32) -> bool) -> DescribeLogDirsTopic {
    let partitions = topic.partitions.iter().filter(|partition| partition.is_here()).filter_map(|partition| {
        let index = i32::try_from(partition.index()).ok().filter(|&index| wanted(index))?;
        let described = DescribeLogDirsPartition::default().with_partition_index(index);
        Some(described.with_partition_size(i64::try_from(partition.local_bytes()).unwrap_or(i64::MAX)))
    });
    DescribeLogDirsTopic::default().with_name(topic_name(&topic.name)).with_partitions(partitions.collect())
}
