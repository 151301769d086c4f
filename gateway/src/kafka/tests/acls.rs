//! ACLs as a client makes, sees, uses and removes them.

use std::time::Duration;

use forebay_log::Offset;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::super::topics::topic_name;
use super::door::{batch, produce};
use super::secured::{SASL, Secured, call, with_acls};
use crate::client::kafka::{Acks, At};
use crate::security::acl::{Operation, PatternType, Permission, ResourceType};

const ANY: i8 = 1;
const MATCH: i8 = 2;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Allows alice to do something, from anywhere.
fn allow(operation: Operation, of: ResourceType, name: &str) -> AclCreation {
    AclCreation::default()
        .with_resource_type(of.code())
        .with_resource_name(text(name))
        .with_resource_pattern_type(PatternType::Literal.code())
        .with_principal(text("User:alice"))
        .with_host(text("*"))
        .with_operation(operation.code())
        .with_permission_type(Permission::Allow.code())
}

async fn create(door: &Secured, acls: Vec<AclCreation>) -> Vec<i16> {
    let mut admin = door.raw_of("admin", "admin-secret").await;
    let response = call(&mut admin, &CreateAclsRequest::default().with_creations(acls), 3).await.unwrap();
    response.results.iter().map(|result| result.error_code).collect()
}

fn filter(name: Option<&str>, pattern: i8) -> DeleteAclsFilter {
    DeleteAclsFilter::default()
        .with_resource_type_filter(ANY)
        .with_resource_name_filter(name.map(text))
        .with_pattern_type_filter(pattern)
        .with_principal_filter(None)
        .with_host_filter(None)
        .with_operation(ANY)
        .with_permission_type(ANY)
}

/// The names in the ACLs that a filter means.
async fn described(door: &Secured, filter: DeleteAclsFilter) -> Vec<String> {
    let mut admin = door.raw_of("admin", "admin-secret").await;
    let request = DescribeAclsRequest::default()
        .with_resource_type_filter(filter.resource_type_filter)
        .with_resource_name_filter(filter.resource_name_filter)
        .with_pattern_type_filter(filter.pattern_type_filter)
        .with_principal_filter(filter.principal_filter)
        .with_host_filter(filter.host_filter)
        .with_operation(filter.operation)
        .with_permission_type(filter.permission_type);
    let response = call(&mut admin, &request, 3).await.unwrap();
    assert_eq!(response.error_code, 0);
    let names =
        response.resources.iter().flat_map(|resource| vec![resource.resource_name.to_string(); resource.acls.len()]);
    names.collect()
}

async fn delete(door: &Secured, filters: Vec<DeleteAclsFilter>) -> Vec<usize> {
    let mut admin = door.raw_of("admin", "admin-secret").await;
    let response = call(&mut admin, &DeleteAclsRequest::default().with_filters(filters), 3).await.unwrap();
    assert!(response.filter_results.iter().all(|result| result.error_code == 0), "{response:?}");
    response.filter_results.iter().map(|result| result.matching_acls.len()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_acl_allows_can_be_done_at_once_and_no_more_when_it_is_gone() {
    let mut door = Secured::open(&with_acls()).await;
    door.log_in("PLAIN", "admin", "admin-secret").await.unwrap().topic("readings", true).await.unwrap();
    let mut alice = door.log_in("SCRAM-SHA-512", "alice", "alice-secret").await.unwrap();
    assert!(alice.topic("readings", false).await.is_err());
    assert_eq!(create(&door, vec![allow(Operation::Write, ResourceType::Topic, "readings")]).await, [0]);
    // The connection that was there before may now, too; to write implies to describe, but not to read.
    let leader = alice.topic("readings", false).await.unwrap().partitions[0].leader;
    alice.produce(leader, "readings", 0, batch(&["a"]), Acks::All).await.unwrap();
    assert_eq!(alice.offset(leader, "readings", 0, At::End).await.unwrap(), Offset(1));
    let read = alice.fetch(leader, "readings", &[(0, Offset(0))], 1 << 20, Duration::ZERO).await;
    assert!(read.is_err());

    door.restart().await;
    let mut alice = door.log_in("PLAIN", "alice", "alice-secret").await.unwrap();
    let leader = alice.topic("readings", false).await.unwrap().partitions[0].leader;
    alice.produce(leader, "readings", 0, batch(&["b"]), Acks::All).await.unwrap();
    assert_eq!(delete(&door, vec![filter(Some("readings"), 3)]).await, [1]);
    assert!(alice.produce(leader, "readings", 0, batch(&["c"]), Acks::All).await.is_err());
    door.restart().await;
    let mut alice = door.log_in("PLAIN", "alice", "alice-secret").await.unwrap();
    assert!(alice.topic("readings", false).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deny_wins_and_a_prefix_covers_what_begins_with_it() {
    let door = Secured::open(&with_acls()).await;
    let mut admin = door.log_in("PLAIN", "admin", "admin-secret").await.unwrap();
    for name in ["meters.a", "meters.b", "other"] {
        admin.topic(name, true).await.unwrap();
    }
    let prefixed = |acl: AclCreation| acl.with_resource_pattern_type(PatternType::Prefixed.code());
    let all = prefixed(allow(Operation::All, ResourceType::Topic, "meters."));
    let deny = allow(Operation::Describe, ResourceType::Topic, "meters.b").with_principal(text("User:*"));
    let deny = deny.with_permission_type(Permission::Deny.code());
    assert_eq!(create(&door, vec![all, deny]).await, [0, 0]);
    let mut alice = door.log_in("PLAIN", "alice", "alice-secret").await.unwrap();
    let names: Vec<String> = alice.topics().await.unwrap().into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["meters.a"]);
    assert_eq!(described(&door, filter(Some("meters.b"), MATCH)).await, ["meters.", "meters.b"]);
    assert_eq!(described(&door, filter(Some("meters.b"), ANY)).await, ["meters.b"]);
    assert_eq!(described(&door, filter(None, 4)).await, ["meters."]);
    assert_eq!(delete(&door, vec![filter(Some("meters.b"), MATCH), filter(None, ANY)]).await, [2, 0]);
    assert!(described(&door, filter(None, ANY)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acl_for_one_host_is_not_for_another() {
    let door = Secured::open(&with_acls()).await;
    door.log_in("PLAIN", "admin", "admin-secret").await.unwrap().topic("readings", true).await.unwrap();
    let mut alice = door.log_in("PLAIN", "alice", "alice-secret").await.unwrap();
    let read = allow(Operation::Read, ResourceType::Topic, "readings");
    create(&door, vec![read.clone().with_host(text("10.9.8.7"))]).await;
    assert!(alice.topic("readings", false).await.is_err());
    create(&door, vec![read.with_host(text("127.0.0.1"))]).await;
    alice.topic("readings", false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn acls_that_make_no_sense_are_refused_with_the_reason() {
    let door = Secured::open(&with_acls()).await;
    let good = allow(Operation::Read, ResourceType::Topic, "readings");
    let invalid = ResponseError::InvalidRequest.code();
    let bad = vec![
        good.clone().with_resource_type(ANY),
        good.clone().with_resource_pattern_type(MATCH),
        good.clone().with_operation(ANY),
        good.clone().with_permission_type(ANY),
        good.clone().with_principal(text("alice")),
        good.clone().with_principal(text("User:")),
        good.clone().with_host(text("")),
        good.clone().with_resource_name(text("")),
        good.clone().with_resource_type(ResourceType::Cluster.code()),
        good.clone().with_resource_name(text(&"x".repeat(2000))),
        good.clone(),
        good,
    ];
    let mut expected = vec![invalid; 10];
    expected.extend([0, 0]);
    assert_eq!(create(&door, bad).await, expected);
    assert_eq!(described(&door, filter(None, ANY)).await, ["readings"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_made_by_who_may_create_it_only() {
    let door = Secured::open(&with_acls()).await;
    create(&door, vec![allow(Operation::Describe, ResourceType::Topic, "*")]).await;
    let mut alice = door.log_in("PLAIN", "alice", "alice-secret").await.unwrap();
    let denied = ResponseError::TopicAuthorizationFailed.code();
    let mut raw = door.raw_of("alice", "alice-secret").await;
    let asked = vec![MetadataRequestTopic::default().with_name(Some(topic_name("mine")))];
    let request = MetadataRequest::default().with_topics(Some(asked)).with_allow_auto_topic_creation(true);
    assert_eq!(call(&mut raw, &request, 9).await.unwrap().topics[0].error_code, denied);
    assert!(alice.create_topic("mine", None, None, &[]).await.is_err());
    create(&door, vec![allow(Operation::Create, ResourceType::Topic, "mine")]).await;
    assert_eq!(call(&mut raw, &request, 9).await.unwrap().topics[0].error_code, 0);
    create(&door, vec![allow(Operation::Create, ResourceType::Cluster, "kafka-cluster")]).await;
    alice.create_topic("other", None, None, &[]).await.unwrap();
    assert!(alice.delete_topic("other").await.is_err());
    create(&door, vec![allow(Operation::Delete, ResourceType::Topic, "other")]).await;
    alice.delete_topic("other").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_used_by_who_may_read_it_and_the_topics() {
    let door = Secured::open(&with_acls()).await;
    door.log_in("PLAIN", "admin", "admin-secret").await.unwrap().topic("readings", true).await.unwrap();
    create(&door, vec![allow(Operation::Read, ResourceType::Group, "billing")]).await;
    let mut alice = door.log_in("PLAIN", "alice", "alice-secret").await.unwrap();
    let seek = async |alice: &mut crate::client::kafka::Client| {
        alice.seek_group("billing", "readings", &[(0, Offset(1))]).await.map_err(|error| error.to_string())
    };
    assert!(
        seek(&mut alice).await.is_err_and(|why| why.to_lowercase().contains("topic")),
        "the group alone is not enough"
    );
    create(&door, vec![allow(Operation::Read, ResourceType::Topic, "readings")]).await;
    seek(&mut alice).await.unwrap();
    assert_eq!(alice.groups().await.unwrap(), ["billing"]);
    assert!(alice.delete_group("billing").await.is_err());
    create(&door, vec![allow(Operation::Delete, ResourceType::Group, "billing")]).await;
    alice.delete_group("billing").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_may_do_is_told_to_who_asks() {
    let door = Secured::open(&with_acls()).await;
    door.log_in("PLAIN", "admin", "admin-secret").await.unwrap().topic("readings", true).await.unwrap();
    create(&door, vec![allow(Operation::Read, ResourceType::Topic, "readings")]).await;
    let asked = vec![MetadataRequestTopic::default().with_name(Some(topic_name("readings")))];
    let request = MetadataRequest::default().with_topics(Some(asked)).with_include_topic_authorized_operations(true);
    let request = request.with_include_cluster_authorized_operations(true);
    let bits = |operations: &[Operation]| operations.iter().fold(0, |bits, operation| bits | 1 << operation.code());
    let mut alice = door.raw_of("alice", "alice-secret").await;
    let told = call(&mut alice, &request, 8).await.unwrap();
    assert_eq!(told.topics[0].topic_authorized_operations, bits(&[Operation::Read, Operation::Describe]));
    assert_eq!(told.cluster_authorized_operations, 0);
    let mut admin = door.raw_of("admin", "admin-secret").await;
    let told = call(&mut admin, &request, 8).await.unwrap();
    assert_eq!(told.topics[0].topic_authorized_operations, bits(ResourceType::Topic.operations()));
    assert_eq!(told.cluster_authorized_operations, bits(ResourceType::Cluster.operations()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_authorizer_everything_is_allowed_and_there_are_no_acls() {
    let door = Secured::open(SASL).await;
    let acl = allow(Operation::Read, ResourceType::Topic, "readings");
    assert_eq!(create(&door, vec![acl]).await, [ResponseError::SecurityDisabled.code()]);
    let mut alice = door.log_in("PLAIN", "alice", "alice-secret").await.unwrap();
    alice.topic("readings", true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_acl_is_about_is_allowed_where_that_is_configured() {
    let door = Secured::open(&[&with_acls()[..], &["kafka.allow.everyone.if.no.acl.found=true"]].concat()).await;
    let mut alice = door.log_in("PLAIN", "alice", "alice-secret").await.unwrap();
    alice.topic("readings", true).await.unwrap();
    create(&door, vec![allow(Operation::Read, ResourceType::Topic, "readings").with_principal(text("User:bob"))]).await;
    assert!(alice.topic("readings", false).await.is_err(), "now there is an ACL, and not for alice");
    let mut raw = door.raw_of("alice", "alice-secret").await;
    let refused = call(&mut raw, &produce("readings", 0, -1, batch(&["x"])), 9).await.unwrap();
    let denied = ResponseError::TopicAuthorizationFailed.code();
    assert_eq!(refused.responses[0].partition_responses[0].error_code, denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_so_many_acls_and_no_more() {
    use crate::security::limits::MAX_ACLS;
    let door = Secured::open(&with_acls()).await;
    let many = |from: usize, count: usize| -> Vec<AclCreation> {
        (from..from + count).map(|n| allow(Operation::Read, ResourceType::Topic, &format!("t{n}"))).collect()
    };
    assert!(create(&door, many(0, MAX_ACLS - 1)).await.iter().all(|code| *code == 0));
    let full = ResponseError::PolicyViolation.code();
    assert_eq!(create(&door, many(MAX_ACLS - 2, 3)).await, [0, 0, full]);
    let removed = delete(&door, vec![filter(Some("t0"), 3)]).await;
    assert_eq!(removed, [1]);
    assert_eq!(create(&door, many(MAX_ACLS, 1)).await, [0]);
}
