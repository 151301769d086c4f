//! AlterUserScramCredentials (51), v0: makes, changes and removes users (KIP-554). The client salts and iterates the password
//! itself; what arrives, and even more what is stored, is not the password.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::alter_user_scram_credentials_request::{
    AlterUserScramCredentialsRequest, ScramCredentialUpsertion,
};
use kafka_protocol::messages::alter_user_scram_credentials_response::{
    AlterUserScramCredentialsResponse, AlterUserScramCredentialsResult,
};
use kafka_protocol::protocol::StrBytes;

use super::Shared;
use super::api::Api;
use super::errors::Refusal;
use super::guard::{Field, INT8, INT32, Kind, Struct};
use super::session::Session;
use crate::security::acl::Operation;
use crate::security::limits::{MAX_ITERATIONS, MAX_NAME_BYTES, MAX_SALT_BYTES, MIN_ITERATIONS};
use crate::security::scram::{ScramCredential, ScramMechanism};
use crate::security::{ChangeRefused, CredentialChange};

pub(crate) static API: Api = Api {
    key: ApiKey::AlterUserScramCredentials,
    name: "AlterUserScramCredentials",
    advertised_from: 0,
    from: 0,
    to: 0,
    flexible_from: 0,
    request: &Struct {
        fields: &[
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[Field::new(Kind::String), Field::new(INT8)],
                tags: &[],
            }))),
            Field::new(Kind::Array(&Kind::Struct(&Struct {
                fields: &[
                    Field::new(Kind::String),
                    Field::new(INT8),
                    Field::new(INT32),
                    Field::new(Kind::Bytes),
                    Field::new(Kind::Bytes),
                ],
                tags: &[],
            }))),
        ],
        tags: &[],
    },
};

type Outcomes = BTreeMap<String, Result<(), Refusal>>;

pub(crate) async fn handle(
    shared: &Shared,
    session: &Session,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let results = alter(shared, session, request).await.into_iter().map(|(user, outcome)| {
        let result = AlterUserScramCredentialsResult::default().with_user(StrBytes::from_string(user));
        match outcome {
            Ok(()) => result.with_error_message(None),
            Err(refusal) => {
                result.with_error_code(refusal.code).with_error_message(refusal.message.map(StrBytes::from_string))
            }
        }
    });
    AlterUserScramCredentialsResponse::default().with_results(results.collect())
}

async fn alter(shared: &Shared, session: &Session, request: AlterUserScramCredentialsRequest) -> Outcomes {
    let allowed = session.cluster(Operation::Alter).map_err(Refusal::from);
    let mut outcomes = Outcomes::new();
    let (mut changes, mut seen) = (Vec::new(), HashSet::new());
    let deletions = request.deletions.iter().map(|asked| {
        let credential = mechanism(asked.mechanism).map(|mechanism| (mechanism, None));
        (asked.name.as_str(), asked.mechanism, credential)
    });
    let upsertions = request.upsertions.iter().map(|asked| {
        let credential = credential(asked).map(|credential| (credential.mechanism, Some(credential)));
        (asked.name.as_str(), asked.mechanism, credential)
    });
    for (user, code, change) in deletions.chain(upsertions) {
        let outcome = outcomes.entry(user.to_owned()).or_insert_with(|| allowed.clone());
        if outcome.is_err() {
            continue;
        }
        let checked = check_user(shared, user).and(change).and_then(|change| match seen.insert((user, code)) {
            true => Ok(change),
            false => {
                let why = "a user credential cannot be altered twice in the same request";
                Err(Refusal::new(ResponseError::DuplicateResource, why))
            }
        });
        match checked {
            Ok((mechanism, credential)) => {
                changes.push(CredentialChange { user: user.to_owned(), mechanism, credential });
            }
            Err(refusal) => *outcome = Err(refusal),
        }
    }
    changes.retain(|change| outcomes.get(&change.user).is_some_and(Result::is_ok));
    if changes.is_empty() {
        return outcomes;
    }
    match shared.door.security.alter_credentials(changes).await {
        Ok(altered) => {
            for (user, altered) in altered {
                if altered.is_ok() {
                    tracing::info!(user, by = session.principal(), "SCRAM credentials altered");
                }
                outcomes.insert(user, altered.map_err(Refusal::from));
            }
        }
        Err(error) => {
            let refusal = Refusal::from(error);
            outcomes.values_mut().filter(|outcome| outcome.is_ok()).for_each(|outcome| *outcome = Err(refusal.clone()));
        }
    }
    outcomes
}

fn unacceptable<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(ResponseError::UnacceptableCredential, why))
}

fn check_user(shared: &Shared, user: &str) -> Result<(), Refusal> {
    if user.is_empty() || user.len() > MAX_NAME_BYTES {
        return unacceptable(format!("a user's name has 1 to {MAX_NAME_BYTES} bytes"));
    }
    if shared.door.security.is_file_user(user) {
        return unacceptable(format!("user {user} stands in [users] of the node's config file; change it there"));
    }
    Ok(())
}

fn mechanism(code: i8) -> Result<ScramMechanism, Refusal> {
    let unknown = || Refusal::new(ResponseError::UnsupportedSaslMechanism, "unknown SCRAM mechanism");
    ScramMechanism::from_code(code).ok_or_else(unknown)
}

fn credential(asked: &ScramCredentialUpsertion) -> Result<ScramCredential, Refusal> {
    let mechanism = mechanism(asked.mechanism)?;
    let iterations = u32::try_from(asked.iterations).ok().and_then(NonZeroU32::new);
    let iterations = iterations.filter(|number| (MIN_ITERATIONS..=MAX_ITERATIONS).contains(&number.get()));
    let Some(iterations) = iterations else {
        return unacceptable(format!("{MIN_ITERATIONS} to {MAX_ITERATIONS} iterations are accepted"));
    };
    if asked.salt.is_empty() || asked.salt.len() > MAX_SALT_BYTES {
        return unacceptable(format!("a salt has 1 to {MAX_SALT_BYTES} bytes"));
    }
    if asked.salted_password.len() != mechanism.size() {
        return unacceptable(format!("a salted password of {} has {} bytes", mechanism.name(), mechanism.size()));
    }
    // A copy, so that the credential does not hold its whole request in memory.
    let salt = asked.salt.to_vec().into();
    Ok(ScramCredential::of_salted(mechanism, &asked.salted_password, salt, iterations))
}

impl From<ChangeRefused> for Refusal {
    fn from(refused: ChangeRefused) -> Refusal {
        let code = match refused {
            ChangeRefused::NoCredential => ResponseError::ResourceNotFound,
            ChangeRefused::TooManyAcls | ChangeRefused::TooManyCredentials => ResponseError::PolicyViolation,
        };
        Refusal::new(code, refused.to_string())
    }
}
