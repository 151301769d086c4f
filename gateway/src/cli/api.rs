//! A node's HTTP API, as commands ask it.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::RequestBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How long a node may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take: longer than the node itself waits for whom it asks.
const ANSWER: Duration = Duration::from_secs(70);

/// What commands that ask the API have in common.
#[derive(Debug, clap::Args)]
pub(super) struct ApiArgs {
    /// HTTP listener of the node; of a cluster, any node's
    #[arg(long, global = true, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    url: String,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl ApiArgs {
    /// # Errors
    /// There can be no client: no system certificates, no TLS.
    pub(super) fn api(&self) -> anyhow::Result<Api> {
        Api::new(&self.url, Some(ANSWER))
    }

    /// For answers that take as long as there is to read.
    ///
    /// # Errors
    /// As [`ApiArgs::api`].
    pub(super) fn patient_api(&self) -> anyhow::Result<Api> {
        Api::new(&self.url, None)
    }
}

/// The HTTP listener of a node.
pub(super) struct Api {
    url: String,
    client: reqwest::Client,
}

impl Api {
    fn new(url: &str, answer: Option<Duration>) -> anyhow::Result<Api> {
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT);
        if let Some(answer) = answer {
            builder = builder.timeout(answer);
        }
        Ok(Api { url: url.trim_end_matches('/').to_owned(), client: builder.build().context("HTTP client")? })
    }

    /// # Errors
    /// The node cannot be reached, or refuses.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> anyhow::Result<T> {
        let url = format!("{}{path}", self.url);
        ask(&url, self.client.get(&url).query(query)).await
    }

    /// # Errors
    /// As [`Api::get`].
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let url = format!("{}{path}", self.url);
        ask(&url, self.client.post(&url).json(body)).await
    }
}

async fn ask<T: DeserializeOwned>(url: &str, request: RequestBuilder) -> anyhow::Result<T> {
    let unreachable = || format!("{url} does not answer: is the node running, and is --url its http listener?");
    let response = request.send().await.with_context(unreachable)?;
    let status = response.status();
    let body = response.bytes().await.with_context(|| format!("{url}: the answer was cut off"))?;
    if !status.is_success() {
        // The reason for a person, where it is this program that answers.
        let told: Option<Value> = serde_json::from_slice(&body).ok();
        match told.as_ref().and_then(|told| told["error"].as_str()) {
            Some(why) => bail!("{why}"),
            None => bail!("{url}: {status}: {}", String::from_utf8_lossy(&body).trim()),
        }
    }
    serde_json::from_slice(&body).with_context(|| format!("{url}: not the answer of this program's API"))
}

/// Prints to standard output.
///
/// # Errors
/// It cannot be written.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("stdout")
}

/// JSON as people read it, with a line end.
///
/// # Errors
/// It is no JSON.
pub(super) fn pretty(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(value)?))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_waited_for_until_the_end_of_patience_only() {
        let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", hung.local_addr().unwrap());
        let api = Api::new(&url, Some(Duration::from_millis(50))).unwrap();
        let answer = api.get::<Value>("/api/v1/status", &[]);
        let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("it gives up");
        assert!(format!("{:#}", answer.unwrap_err()).contains("does not answer"));
    }
}
