//! AlterClientQuotas (49), v0-1: sets and removes the bytes a second of users and client ids (KIP-546).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::alter_client_quotas_request::{AlterClientQuotasRequest, EntryData, OpData};
use kafka_protocol::messages::alter_client_quotas_response::{
    AlterClientQuotasResponse, EntityData, EntryData as Answered,
};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::describe_client_quotas::{CLIENT_ID, USER};
use super::errors::Refusal;
use super::guard::{BOOL, Field, INT64, Kind, Struct};
use super::quotas::{Entity, Limited, Rates, Side};
use super::session::Session;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::AlterClientQuotas,
    name: "AlterClientQuotas",
    advertised_from: 0,
    from: 0,
    to: 1,
    flexible_from: 1,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(Kind::String), Field::new(Kind::String)],
                        tags: &[],
                    }))),
                    Field::new(Kind::Array(&Kind::Struct(&Struct {
                        fields: &[Field::new(Kind::String), Field::new(INT64), Field::new(BOOL)],
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

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    request: AlterClientQuotasRequest,
) -> AlterClientQuotasResponse {
    let mut entries = Vec::with_capacity(request.entries.len());
    for entry in request.entries {
        let altered = alter(shared, session, &entry, request.validate_only).await;
        let entity = entry
            .entity
            .into_iter()
            .map(|side| EntityData::default().with_entity_type(side.entity_type).with_entity_name(side.entity_name));
        let answer = Answered::default().with_entity(entity.collect()).with_error_message(None);
        entries.push(match altered {
            Ok(()) => answer,
            Err(refusal) => {
                answer.with_error_code(refusal.code).with_error_message(refusal.message.map(StrBytes::from_string))
            }
        });
    }
    AlterClientQuotasResponse::default().with_entries(entries)
}

async fn alter(shared: &Shared, session: &Session, entry: &EntryData, validate_only: bool) -> Result<(), Refusal> {
    session.cluster(Operation::AlterConfigs)?;
    let entity = entity(entry)?;
    let change = |rates: &mut Rates| entry.ops.iter().try_for_each(|op| apply(rates, op));
    if validate_only {
        return change(&mut Rates::new());
    }
    shared.quotas.alter(&shared.door.log, &entity, change).await?;
    tracing::info!(?entity, "client quotas altered");
    Ok(())
}

fn entity(entry: &EntryData) -> Result<Entity, Refusal> {
    let refuse = |why: String| Refusal::new(ResponseError::InvalidRequest, why);
    let mut entity = Entity::default();
    for part in &entry.entity {
        let side = match part.entity_type.as_str() {
            USER => &mut entity.user,
            CLIENT_ID => &mut entity.client,
            other => {
                return Err(refuse(format!("quotas for {other} are not kept: {USER} and {CLIENT_ID} can have them")));
            }
        };
        let named = match &part.entity_name {
            Some(name) if name.is_empty() => return Err(refuse(format!("an empty {}", part.entity_type.as_str()))),
            Some(name) => Side::Named(name.to_string()),
            None => Side::Default,
        };
        if side.replace(named).is_some() {
            return Err(refuse(format!("{} is named twice", part.entity_type.as_str())));
        }
    }
    if entity == Entity::default() {
        return Err(refuse("a quota is for a user, a client id, or both".to_owned()));
    }
    Ok(entity)
}

fn apply(rates: &mut Rates, op: &OpData) -> Result<(), Refusal> {
    let key = op.key.as_str();
    let limited = Limited::named(key).ok_or_else(|| {
        let why = format!("{key} is no quota here: producer_byte_rate and consumer_byte_rate are");
        Refusal::new(ResponseError::InvalidRequest, why)
    })?;
    if op.remove {
        rates.remove(&limited);
        return Ok(());
    }
    if !(op.value.is_finite() && op.value > 0.0) {
        let why = format!("{key}: {} is not a number of bytes a second", op.value);
        return Err(Refusal::new(ResponseError::InvalidRequest, why));
    }
    rates.insert(limited, op.value);
    Ok(())
}
