//! A node's HTTP API, as commands ask it.

use anyhow::{Context, bail};
use reqwest::RequestBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The HTTP listener of a node.
pub(super) struct Api {
    url: String,
    client: reqwest::Client,
}

impl Api {
    pub(super) fn new(url: &str) -> Api {
        Api { url: url.trim_end_matches('/').to_owned(), client: reqwest::Client::new() }
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
