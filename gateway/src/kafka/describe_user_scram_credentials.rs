//! DescribeUserScramCredentials (50), v0: which mechanisms users can log in with, and their iterations (KIP-554).

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::describe_user_scram_credentials_request::DescribeUserScramCredentialsRequest;
use kafka_protocol::messages::describe_user_scram_credentials_response::{
    CredentialInfo, DescribeUserScramCredentialsResponse, DescribeUserScramCredentialsResult,
};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::guard::{Field, Kind, Struct};
use super::session::Session;
use crate::security::acl::Operation;
use crate::security::scram::ScramMechanism;

pub(crate) static API: Api = Api {
    key: ApiKey::DescribeUserScramCredentials,
    name: "DescribeUserScramCredentials",
    advertised_from: 0,
    from: 0,
    to: 0,
    flexible_from: 0,
    request: &Struct {
        fields: &[Field::new(Kind::Array(&Kind::Struct(&Struct { fields: &[Field::new(Kind::String)], tags: &[] })))],
        tags: &[],
    },
};

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let asked: Vec<StrBytes> = request.users.into_iter().flatten().map(|user| user.name).collect();
    match describe(shared, session, asked).await {
        Ok(results) => DescribeUserScramCredentialsResponse::default().with_error_message(None).with_results(results),
        Err(refusal) => DescribeUserScramCredentialsResponse::default()
            .with_error_code(refusal.code)
            .with_error_message(refusal.message.map(StrBytes::from_string)),
    }
}

/// `asked`: none means all.
async fn describe(
    shared: &Shared,
    session: &Session,
    asked: Vec<StrBytes>,
) -> Result<Vec<DescribeUserScramCredentialsResult>, Refusal> {
    session.cluster(Operation::Describe)?;
    let users = shared.door.security.scram_users().await?;
    let result = |user: StrBytes| DescribeUserScramCredentialsResult::default().with_user(user);
    let whole = |user: StrBytes, facts: &[(ScramMechanism, u32)]| {
        let info = |(mechanism, iterations): &(ScramMechanism, u32)| {
            CredentialInfo::default()
                .with_mechanism(mechanism.code())
                .with_iterations(i32::try_from(*iterations).unwrap_or(i32::MAX))
        };
        result(user).with_error_message(None).with_credential_infos(facts.iter().map(info).collect())
    };
    if asked.is_empty() {
        let all = users.iter().map(|(user, facts)| whole(StrBytes::from_string(user.clone()), facts));
        return Ok(all.collect());
    }
    let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
    for user in &asked {
        if !seen.insert(user.clone()) {
            twice.insert(user.clone());
        }
    }
    let mut results = Vec::with_capacity(seen.len());
    for user in asked.into_iter().filter(|user| seen.remove(user)) {
        let refused = |error: ResponseError, why: String| {
            result(user.clone()).with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(why)))
        };
        results.push(match users.get(user.as_str()) {
            _ if twice.contains(&user) => {
                let why = format!("cannot describe credentials for the same user twice: {}", user.as_str());
                refused(ResponseError::DuplicateResource, why)
            }
            Some(facts) => whole(user, facts),
            None => {
                let why = format!("attempt to describe a user credential that does not exist: {}", user.as_str());
                refused(ResponseError::ResourceNotFound, why)
            }
        });
    }
    Ok(results)
}
