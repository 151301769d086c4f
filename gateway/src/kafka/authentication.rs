//! The login of a connection (KIP-43, KIP-152): what may be sent before it, and the SASL exchange itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::Decodable;
use tokio::time::Instant;
use uuid::Uuid;

use super::api::Api;
use super::dispatch::{Reply, whole};
use super::limits::LOGIN_TIMEOUT;
use super::request::{Request, Unreadable, parse};
use super::session::Session;
use super::{Shared, api_versions, sasl_authenticate, sasl_handshake};
use crate::config::SaslMechanism;
use crate::security::scram_server::{ClientFirst, ScramServer};

/// First version of SaslHandshake after which tokens come in requests; before, they stand alone in their frames.
const TOKENS_IN_REQUESTS: i16 = 1;

/// How far a connection is on its way in.
pub(crate) enum Login {
    Done(Arc<Session>),
    Open(Box<Authentication>),
}

/// A login that is under way.
pub(crate) struct Authentication {
    peer: SocketAddr,
    deadline: Instant,
    state: State,
}

enum State {
    /// No mechanism is chosen yet.
    Begun,
    Chosen {
        mechanism: SaslMechanism,
        /// Whether tokens come without requests around them.
        bare: bool,
        /// Behind the first message of SCRAM.
        scram: Option<Box<ScramServer>>,
    },
}

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0} before the login")]
    TooEarly(&'static str),
    #[error("mechanism {0:?} is not enabled")]
    Mechanism(String),
    #[error("login of user {user:?} by {mechanism} failed: {why}")]
    Credentials { user: String, mechanism: &'static str, why: String },
}

/// What a frame has led to.
pub(crate) struct Step {
    pub(crate) api: &'static Api,
    pub(crate) reply: Reply,
    pub(crate) next: Next,
}

pub(crate) enum Next {
    GoOn,
    Done(Arc<Session>),
    /// The reply is the last one.
    Failed(Refusal),
}

/// Why a frame has no reply at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoReply {
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error(transparent)]
    Refused(Refusal),
}

impl Login {
    /// `principal`: of the certificate that the client has shown. Behind SASL it is who logs in instead.
    pub(crate) fn new(shared: &Arc<Shared>, peer: SocketAddr, principal: Option<String>) -> Login {
        if shared.door.config.kafka.security_protocol.is_sasl() {
            let deadline = Instant::now() + LOGIN_TIMEOUT;
            Login::Open(Box::new(Authentication { peer, deadline, state: State::Begun }))
        } else {
            Login::Done(Arc::new(Session::new(shared, peer, principal)))
        }
    }
}

impl Authentication {
    /// How long the client may still take.
    pub(crate) fn patience(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Takes one frame of the client.
    ///
    /// # Errors
    /// It has no reply: the connection closes.
    pub(crate) fn step(&mut self, shared: &Arc<Shared>, frame: Bytes) -> Result<Step, NoReply> {
        if let State::Chosen { bare: true, .. } = self.state {
            return self.bare_token(shared, &frame);
        }
        let request = parse(frame)?;
        let Request { api, version, correlation_id, .. } = request;
        match (api.key, &self.state) {
            (ApiKey::ApiVersions, _) => {
                let reply = whole(api, version, correlation_id, &api_versions::answer(!request.unknown_version));
                Ok(Step { api, reply, next: Next::GoOn })
            }
            (ApiKey::SaslHandshake, State::Begun) => {
                let asked: SaslHandshakeRequest = decode(&request)?;
                let refused = self.choose(shared, version, &asked.mechanism).err();
                let error = refused.as_ref().map(|_| ResponseError::UnsupportedSaslMechanism);
                let reply = whole(api, version, correlation_id, &sasl_handshake::answer(shared, error));
                Ok(Step { api, reply, next: refused.map_or(Next::GoOn, Next::Failed) })
            }
            (ApiKey::SaslAuthenticate, State::Chosen { .. }) => {
                let asked: SaslAuthenticateRequest = decode(&request)?;
                let (response, next) = match self.token(shared, &asked.auth_bytes) {
                    Ok((token, next)) => (sasl_authenticate::accepted(token), next),
                    Err(refusal) => (refused(&refusal), Next::Failed(refusal)),
                };
                Ok(Step { api, reply: whole(api, version, correlation_id, &response), next })
            }
            _ => Err(NoReply::Refused(Refusal::TooEarly(api.name))),
        }
    }

    fn choose(&mut self, shared: &Shared, version: i16, name: &str) -> Result<(), Refusal> {
        let enabled = shared.door.security.mechanisms();
        let mechanism = SaslMechanism::from_name(name).filter(|mechanism| enabled.contains(mechanism));
        let mechanism = mechanism.ok_or_else(|| Refusal::Mechanism(name.chars().take(64).collect()))?;
        self.state = State::Chosen { mechanism, bare: version < TOKENS_IN_REQUESTS, scram: None };
        Ok(())
    }

    /// As old clients send it: a refused one cannot be told why.
    fn bare_token(&mut self, shared: &Arc<Shared>, token: &[u8]) -> Result<Step, NoReply> {
        let (answer, next) = self.token(shared, token).map_err(NoReply::Refused)?;
        let mut frame = BytesMut::with_capacity(answer.len() + 4);
        frame.put_i32(i32::try_from(answer.len()).unwrap_or(i32::MAX));
        frame.put_slice(&answer);
        let reply = Reply { pieces: vec![frame.freeze()], ..Reply::default() };
        Ok(Step { api: &sasl_authenticate::API, reply, next })
    }

    /// One step of the mechanism.
    fn token(&mut self, shared: &Arc<Shared>, token: &[u8]) -> Result<(Bytes, Next), Refusal> {
        let State::Chosen { mechanism, scram, .. } = &mut self.state else {
            return Err(Refusal::TooEarly(sasl_authenticate::API.name));
        };
        let name = mechanism.name();
        let refused = |user: &str, why: String| {
            let user = user.chars().take(256).collect();
            Refusal::Credentials { user, mechanism: name, why }
        };
        let security = &shared.door.security;
        match (mechanism, scram.take()) {
            (SaslMechanism::Plain, _) => {
                let (user, password) = plain(token).map_err(|why| refused("", why.to_owned()))?;
                if !security.check_password(user, password) {
                    return Err(refused(user, "no such user, or another password".to_owned()));
                }
                Ok((Bytes::new(), self.done(shared, user)))
            }
            (SaslMechanism::Scram(mechanism), None) => {
                let first = ClientFirst::parse(token).map_err(|error| refused("", error.to_string()))?;
                let credential = security.credential(*mechanism, &first.user);
                let credential = credential.ok_or_else(|| refused(&first.user, "no users are known yet".to_owned()))?;
                let nonce = Uuid::new_v4().simple().to_string();
                let (server, answer) = ScramServer::begin(first, credential, &nonce);
                *scram = Some(Box::new(server));
                Ok((answer, Next::GoOn))
            }
            (SaslMechanism::Scram(_), Some(server)) => {
                let user = server.user.clone();
                let answer = server.finish(token).map_err(|error| refused(&user, error.to_string()))?;
                Ok((answer, self.done(shared, &user)))
            }
        }
    }

    fn done(&self, shared: &Arc<Shared>, user: &str) -> Next {
        Next::Done(Arc::new(Session::new(shared, self.peer, Some(format!("User:{user}")))))
    }
}

/// The same for a user who does not exist and for a wrong password.
fn refused(refusal: &Refusal) -> kafka_protocol::messages::SaslAuthenticateResponse {
    let why = match refusal {
        Refusal::Credentials { mechanism, .. } => format!("Authentication failed: invalid credentials for {mechanism}"),
        other => other.to_string(),
    };
    sasl_authenticate::refused(ResponseError::SaslAuthenticationFailed, &why)
}

fn decode<M: Decodable>(request: &Request) -> Result<M, Unreadable> {
    let Request { api, version, body, .. } = request;
    let problem = |problem| Unreadable::Body { api: api.name, version: *version, problem };
    api.decode(*version, body.clone()).map_err(problem)
}

/// Reads `[authorization id] NUL user NUL password` (RFC 4616).
fn plain(token: &[u8]) -> Result<(&str, &str), &'static str> {
    let text = std::str::from_utf8(token).map_err(|_| "the token is not UTF-8")?;
    let mut parts = text.split('\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(authorization), Some(user), Some(password), None) if !user.is_empty() && !password.is_empty() => {
            match authorization.is_empty() || authorization == user {
                true => Ok((user, password)),
                false => Err("an authorization id other than the user's name"),
            }
        }
        _ => Err("the token has not the form of RFC 4616"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_token_has_a_user_and_a_password_and_no_other_identity() {
        assert_eq!(plain(b"\0alice\0secret"), Ok(("alice", "secret")));
        assert_eq!(plain(b"alice\0alice\0secret"), Ok(("alice", "secret")));
        for bad in
            [&b""[..], b"alice", b"\0alice", b"\0alice\0", b"\0\0secret", b"bob\0alice\0x", b"\0a\0b\0c", b"\0\xff\0b"]
        {
            assert!(plain(bad).is_err(), "{bad:?}");
        }
    }
}
