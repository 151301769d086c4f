//! DeleteTopics (20), v1-6: removes topics with their records, by name or (v6) by id.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use kafka_protocol::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::guard::{Field, INT32, Kind, Struct, UUID};
use super::session::Session;
use super::topics::{is_internal, topic_name};
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::DeleteTopics,
    name: "DeleteTopics",
    advertised_from: 1,
    from: 1,
    to: 6,
    flexible_from: 4,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(Kind::String), Field::new(UUID)],
                tags: &[],
            })))
            .from(6),
            Field::new(Kind::Array(&Kind::String)).to(5),
            Field::new(INT32),
        ],
        tags: &[],
    },
};

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked: Vec<(Option<TopicName>, Uuid)> = if version >= 6 {
        request.topics.into_iter().map(|topic| (topic.name, topic.topic_id)).collect()
    } else {
        request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil())).collect()
    };
    let mut responses = Vec::with_capacity(asked.len());
    for (name, id) in asked {
        let result = DeletableTopicResult::default().with_topic_id(id);
        responses.push(match delete(shared, session, name.as_ref(), id).await {
            Ok(name) => result.with_name(Some(name)),
            Err(refusal) => result
                .with_name(name)
                .with_error_code(refusal.code)
                .with_error_message(refusal.message.map(StrBytes::from_string)),
        });
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete(shared: &Shared, session: &Session, name: Option<&TopicName>, id: Uuid) -> Result<TopicName, Refusal> {
    let log = &shared.door.log;
    let name = match name {
        Some(name) => name.clone(),
        None => topic_name(&shared.topic_ids.find(log, id).ok_or(ResponseError::UnknownTopicId)?.name),
    };
    session.topic(Operation::Delete, &name)?;
    if is_internal(&name) {
        let why = format!("topic {} holds Forebay's own state; it cannot be deleted", name.as_str());
        return Err(Refusal::new(ResponseError::TopicAuthorizationFailed, why));
    }
    log.delete_topic(&name).await?;
    tracing::info!(topic = name.as_str(), "topic deleted");
    Ok(name)
}
