//! DescribeClientQuotas (48), v0-1: how many bytes a second users and client ids may produce and fetch (KIP-546).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::describe_client_quotas_request::{ComponentData, DescribeClientQuotasRequest};
use kafka_protocol::messages::describe_client_quotas_response::{
    DescribeClientQuotasResponse, EntityData, EntryData, ValueData,
};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::guard::{BOOL, Field, INT8, Kind, Struct};
use super::quotas::{Entity, Rates, Side};
use super::session::Session;
use crate::security::acl::Operation;

pub(crate) static API: Api = Api {
    key: ApiKey::DescribeClientQuotas,
    name: "DescribeClientQuotas",
    advertised_from: 0,
    from: 0,
    to: 1,
    flexible_from: 1,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(Kind::String), Field::new(INT8), Field::new(Kind::String)],
                tags: &[],
            }))),
            Field::new(BOOL),
        ],
        tags: &[],
    },
};

pub(crate) const USER: &str = "user";
pub(crate) const CLIENT_ID: &str = "client-id";

/// How a component matches (Kafka's `QuotaMatchType`): one name, the default, or any of them.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;

pub(crate) fn handle(
    shared: &Shared,
    session: &Session,
    request: &DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    let response = DescribeClientQuotasResponse::default();
    match find(shared, session, request) {
        Ok(entries) => response.with_error_message(None).with_entries(Some(entries)),
        Err(Refusal { code, message }) => {
            response.with_error_code(code).with_error_message(message.map(StrBytes::from_string)).with_entries(None)
        }
    }
}

/// What a filter wants of one side of an entity.
#[derive(Debug, PartialEq)]
enum Wanted<'a> {
    Exact(&'a str),
    Default,
    Any,
}

fn find(shared: &Shared, session: &Session, request: &DescribeClientQuotasRequest) -> Result<Vec<EntryData>, Refusal> {
    session.cluster(Operation::DescribeConfigs)?;
    let (mut user, mut client) = (None, None);
    for component in &request.components {
        let side = match component.entity_type.as_str() {
            USER => &mut user,
            CLIENT_ID => &mut client,
            // Quotas by address are not kept: nothing matches.
            "ip" => return Ok(Vec::new()),
            other => {
                let why = format!("{other} is no entity of quotas: {USER} and {CLIENT_ID} are");
                return Err(Refusal::new(ResponseError::UnsupportedVersion, why));
            }
        };
        if side.replace(wanted(component)?).is_some() {
            let why = format!("{} is asked for twice", component.entity_type.as_str());
            return Err(Refusal::new(ResponseError::InvalidRequest, why));
        }
    }
    let table = shared.quotas.table();
    let matching = table.entries.iter().filter(|(entity, _)| {
        matches(user.as_ref(), entity.user.as_ref(), request.strict)
            && matches(client.as_ref(), entity.client.as_ref(), request.strict)
    });
    Ok(matching.map(|(entity, rates)| describe(entity, rates)).collect())
}

fn wanted(component: &ComponentData) -> Result<Wanted<'_>, Refusal> {
    match (component.match_type, &component._match) {
        (EXACT, Some(name)) => Ok(Wanted::Exact(name)),
        (DEFAULT, None) => Ok(Wanted::Default),
        (ANY, None) => Ok(Wanted::Any),
        _ => Err(Refusal::new(ResponseError::InvalidRequest, "a name is given for an exact match, and only for that")),
    }
}

/// `strict`: a side that is not asked for must not be there.
fn matches(wanted: Option<&Wanted<'_>>, side: Option<&Side>, strict: bool) -> bool {
    match (wanted, side) {
        (None, side) => !strict || side.is_none(),
        (Some(Wanted::Any), side) => side.is_some(),
        (Some(Wanted::Default), side) => side == Some(&Side::Default),
        (Some(Wanted::Exact(name)), side) => matches!(side, Some(Side::Named(named)) if named == name),
    }
}

fn describe(entity: &Entity, rates: &Rates) -> EntryData {
    let sides = [(USER, &entity.user), (CLIENT_ID, &entity.client)];
    let sides = sides.into_iter().filter_map(|(name, side)| {
        let named = match side.as_ref()? {
            Side::Named(name) => Some(StrBytes::from_string(name.clone())),
            Side::Default => None,
        };
        Some(EntityData::default().with_entity_type(StrBytes::from_static_str(name)).with_entity_name(named))
    });
    let values = rates.iter().map(|(limited, rate)| {
        ValueData::default().with_key(StrBytes::from_static_str(limited.name())).with_value(*rate)
    });
    EntryData::default().with_entity(sides.collect()).with_values(values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_matches_by_name_by_default_or_at_all() {
        let (alice, default) = (Side::Named("alice".to_owned()), Side::Default);
        assert!(matches(Some(&Wanted::Exact("alice")), Some(&alice), true));
        assert!(!matches(Some(&Wanted::Exact("bob")), Some(&alice), true));
        assert!(
            matches(Some(&Wanted::Default), Some(&default), true)
                && !matches(Some(&Wanted::Default), Some(&alice), true)
        );
        assert!(matches(Some(&Wanted::Any), Some(&alice), true) && !matches(Some(&Wanted::Any), None, true));
        assert!(matches(None, Some(&alice), false) && !matches(None, Some(&alice), true) && matches(None, None, true));
    }
}
