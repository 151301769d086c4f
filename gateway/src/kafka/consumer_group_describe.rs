//! ConsumerGroupDescribe (69), v0-1: state, epochs and members of groups of the consumer protocol (KIP-848).

use forebay_log::group::consumer::{MemberView, Partition, Partitions};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, ConsumerGroupDescribeResponse, DescribedGroup, Member, TopicPartitions,
};
use kafka_protocol::messages::{ApiKey, GroupId};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Shared;
use super::api::Api;
use super::groups::{Ask, DescribedConsumer};
use super::guard::{BOOL, Field, Kind, Struct};
use super::join_group::text;
use super::session::Session;
use super::topics::{once, topic_name};
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::ConsumerGroupDescribe,
    name: "ConsumerGroupDescribe",
    advertised_from: 0,
    from: 0,
    to: 1,
    flexible_from: 0,
    request: &Struct { fields: &[Field::new(Kind::Array(&Kind::String)), Field::new(BOOL)], tags: &[] },
};

/// That a member speaks the consumer protocol.
const CONSUMER: i8 = 1;

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    mut request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    once(&mut request.group_ids, GroupId::clone);
    let mut groups = Vec::with_capacity(request.group_ids.len());
    for group in request.group_ids {
        let described = match session.group(Operation::Describe, &group) {
            Ok(()) => shared.groups.answer(&shared.door.log, &group, Ask::DescribeConsumer).await,
            Err(denied) => Err(denied.into()),
        };
        let response = match described {
            Ok(described) => whole(shared, version, described),
            Err(refusal) => {
                let missing = refusal.code == ResponseError::GroupIdNotFound.code();
                let why = format!("there is no group {} of the consumer protocol", group.as_str());
                DescribedGroup::default()
                    .with_error_code(refusal.code)
                    .with_error_message(missing.then(|| StrBytes::from_string(why)))
            }
        };
        groups.push(response.with_group_id(group));
    }
    ConsumerGroupDescribeResponse::default().with_groups(groups)
}

fn whole(shared: &Shared, version: i16, described: DescribedConsumer) -> DescribedGroup {
    let member = |member: MemberView| {
        let profile = member.profile;
        let response = Member::default()
            .with_member_id(text(&member.id))
            .with_instance_id(profile.instance.as_deref().map(text))
            .with_rack_id(profile.rack.as_deref().map(text))
            .with_member_epoch(member.epoch)
            .with_client_id(text(&profile.client_id))
            .with_client_host(text(&profile.client_host))
            .with_subscribed_topic_names(profile.topics.iter().map(|topic| topic_name(topic)).collect())
            .with_subscribed_topic_regex(profile.regex.as_deref().map(text))
            .with_assignment(assignment(shared, &member.assigned))
            .with_target_assignment(assignment(shared, &member.target));
        if version >= 1 { response.with_member_type(CONSUMER) } else { response }
    };
    DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(described.state))
        .with_group_epoch(described.epoch)
        .with_assignment_epoch(described.target_epoch)
        .with_assignor_name(StrBytes::from_static_str(described.assignor))
        .with_members(described.members.into_iter().map(member).collect())
}

/// Partitions of topics that are gone have no name and are left out.
fn assignment(shared: &Shared, partitions: &Partitions) -> Assignment {
    let sorted: Vec<Partition> = partitions.iter().copied().collect();
    let topics = sorted.chunk_by(|a, b| a.topic == b.topic).filter_map(|of_topic| {
        let id = Uuid::from_bytes(of_topic.first()?.topic.0);
        let topic = shared.topic_ids.find(&shared.door.log, id)?;
        let partitions = TopicPartitions::default().with_topic_id(id).with_topic_name(topic_name(&topic.name));
        Some(partitions.with_partitions(of_topic.iter().map(|part| part.index).collect()))
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
