//! One connection to one broker: framing, and the version of each API that both sides know.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::security::ClientSecurity;
use super::stream::Stream;

/// How long connecting may take, and how long an answer (beyond what the request itself asks to wait).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is taken, in bytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// The error code of an API version that the broker does not know.
const UNSUPPORTED_VERSION: i16 = 35;

pub(super) struct Connection {
    stream: Stream,
    address: String,
    correlation: i32,
    /// Lowest and highest version by API key.
    versions: HashMap<i16, (i16, i16)>,
}

impl Connection {
    /// Connects, asks which versions the broker knows, and logs in.
    pub(super) async fn open(address: &str, security: &ClientSecurity) -> anyhow::Result<Connection> {
        let connect = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = connect
            .map_err(|_| anyhow::anyhow!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))
            .and_then(|stream| Ok(stream?))
            .with_context(|| format!("cannot connect to the Kafka listener at {address}"))?;
        let _ = stream.set_nodelay(true);
        let stream = security
            .secure(address, stream)
            .await
            .with_context(|| format!("cannot connect to the Kafka listener at {address}"))?;
        let mut connection =
            Connection { stream, address: address.to_owned(), correlation: 0, versions: HashMap::new() };
        connection.versions = connection.ask_versions().await?;
        security.log_in(&mut connection).await?;
        Ok(connection)
    }

    async fn ask_versions(&mut self) -> anyhow::Result<HashMap<i16, (i16, i16)>> {
        let named = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("forebay"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut body = self.exchange(&named, 3, ANSWER_TIMEOUT).await?;
        // An old broker answers with a v0 body; the error code stands first in all versions.
        let refused = body.get(..2).is_some_and(|code| code == UNSUPPORTED_VERSION.to_be_bytes());
        let answer = if refused {
            let mut body = self.exchange(&ApiVersionsRequest::default(), 0, ANSWER_TIMEOUT).await?;
            ApiVersionsResponse::decode(&mut body, 0)?
        } else {
            ApiVersionsResponse::decode(&mut body, 3)?
        };
        Ok(answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version))).collect())
    }

    /// Sends the request that `make` builds for the version agreed upon, at most `highest`, and awaits its answer.
    pub(super) async fn call<R: Request>(
        &mut self,
        highest: i16,
        wait: Duration,
        make: impl FnOnce(i16) -> R,
    ) -> anyhow::Result<R::Response> {
        let version = self.version::<R>(highest)?;
        let mut body = self.exchange(&make(version), version, wait + ANSWER_TIMEOUT).await?;
        R::Response::decode(&mut body, version)
    }

    /// Whether the broker knows this API.
    pub(super) fn serves<R: Request>(&self) -> bool {
        self.versions.contains_key(&R::KEY)
    }

    /// The version to speak of an API, at most `highest`.
    fn version<R: Request>(&self, highest: i16) -> anyhow::Result<i16> {
        let &(low, high) = self.versions.get(&R::KEY).with_context(|| {
            format!("{} does not serve the Kafka API with key {} that this needs", self.address, R::KEY)
        })?;
        let version = high.min(highest).min(R::VERSIONS.max);
        if version < low.max(R::VERSIONS.min) {
            bail!("{} serves Kafka API {} only in versions {low} to {high}", self.address, R::KEY);
        }
        Ok(version)
    }

    /// The bare stream and the version of `R` to speak on it: for an owner that keeps several requests in flight.
    pub(super) fn into_raw<R: Request>(self, highest: i16) -> anyhow::Result<(Stream, i16)> {
        let version = self.version::<R>(highest)?;
        Ok((self.stream, version))
    }

    async fn exchange<R: Request>(&mut self, request: &R, version: i16, wait: Duration) -> anyhow::Result<Bytes> {
        self.correlation = self.correlation.wrapping_add(1);
        let frame = frame(request, version, self.correlation)?;
        let exchanged = timeout(wait, async {
            self.stream.write_all(&frame).await?;
            read_frame(&mut self.stream, &mut BytesMut::new()).await
        });
        let mut answer = exchanged
            .await
            .map_err(|_| anyhow::anyhow!("no answer within {} s", wait.as_secs()))
            .and_then(|answer| answer)
            .with_context(|| format!("lost the connection to {}", self.address))?;
        if read_header::<R>(&mut answer, version)? != self.correlation {
            bail!("{} answered another request than the one asked", self.address);
        }
        Ok(answer)
    }
}

/// A whole request with its length (Kafka protocol guide, "Network"). The correlation id is in bytes 8 to 11.
pub(crate) fn frame<R: Request>(request: &R, version: i16, correlation: i32) -> anyhow::Result<BytesMut> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("forebay")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header.encode(&mut frame, R::header_version(version))?;
    request.encode(&mut frame, version)?;
    let length = i32::try_from(frame.len() - 4).context("the request is too large")?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame)
}

/// Takes the header off an answer to `R`; returns the correlation id.
fn read_header<R: Request>(answer: &mut Bytes, version: i16) -> anyhow::Result<i32> {
    // ApiVersions answers with header v0 in every version (KIP-511).
    Ok(ResponseHeader::decode(answer, R::Response::header_version(version))?.correlation_id)
}

/// The correlation id and body of an answer to `R`.
pub(crate) fn answer<R: Request>(mut frame: Bytes, version: i16) -> anyhow::Result<(i32, R::Response)> {
    let correlation = read_header::<R>(&mut frame, version)?;
    Ok((correlation, R::Response::decode(&mut frame, version)?))
}

/// Reads one answer without its length into `buffer`, which is used again once the answer is dropped.
pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> anyhow::Result<Bytes> {
    let length = stream.read_i32().await?;
    let size = usize::try_from(length).ok().filter(|size| *size <= MAX_ANSWER_BYTES);
    let size = size.with_context(|| format!("a frame of {length} bytes is not an answer; is this a Kafka port?"))?;
    while buffer.len() < size {
        buffer.reserve((size - buffer.len()).min(1 << 20));
        let left = size - buffer.len();
        if (&mut *stream).take(left as u64).read_buf(buffer).await? == 0 {
            bail!("the connection was closed in the middle of an answer");
        }
    }
    Ok(buffer.split().freeze())
}
