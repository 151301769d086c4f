//! AlterConfigs (33), v0-2: gives topics exactly the configs that are named; all others go back to the node's defaults.

use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::alter_configs_request::{AlterConfigsRequest, AlterConfigsResource};
use kafka_protocol::messages::alter_configs_response::{AlterConfigsResourceResponse, AlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::config::topic_config::Change;

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::guard::{BOOL, Field, INT8, Kind, Struct};
use super::incremental_alter_configs::{alterable, save};
use super::session::Session;

pub(crate) static API: Api = Api {
    key: ApiKey::AlterConfigs,
    name: "AlterConfigs",
    advertised_from: 0,
    from: 0,
    to: 2,
    flexible_from: 2,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(INT8),
                    Field::new(Kind::String),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(Kind::String), Field::new(Kind::String)],
                        tags: &[],
                    }))),
                ],
                tags: &[],
            }))),
            Field::new(BOOL),
        ],
        tags: &[],
    },
};

pub(crate) async fn handle(shared: &Shared, session: &Session, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let outcome = alter(shared, session, &resource, request.validate_only).await;
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name)
            .with_error_message(None);
        responses.push(match outcome {
            Ok(()) => response,
            Err(refusal) => {
                response.with_error_code(refusal.code).with_error_message(refusal.message.map(StrBytes::from_string))
            }
        });
    }
    AlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    shared: &Shared,
    session: &Session,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refusal> {
    let topic = alterable(shared, session, resource.resource_type, &resource.resource_name)?;
    let defaults = shared.door.config.topic_defaults.config.clone();
    // Without a value a config is not set, as in CreateTopics.
    let sets = resource.configs.iter().filter_map(|entry| Some(Change::Set(&entry.name, entry.value.as_deref()?)));
    save(shared, &topic, defaults, &sets.collect::<Vec<_>>(), validate_only).await
}
