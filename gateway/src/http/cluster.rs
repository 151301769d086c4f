//! `/api/v1/cluster`: the nodes, partitions and followers, and changes to them.

use std::sync::Arc;

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use forebay_cluster::Cluster;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::ApiError;
use super::front::Opened;
use crate::cluster::{self, ChangeError, ClusterStatus, Move, PartitionStatus, Place};
use crate::node::Gateway;

#[derive(Debug, Deserialize)]
pub(super) struct Shown {
    #[serde(default)]
    partitions: Partitions,
}

/// Which partitions are listed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Partitions {
    #[default]
    All,
    /// Those that are under-replicated, offline, moving, or have a follower that is behind.
    Troubled,
}

pub(super) async fn status(
    Opened(gateway): Opened,
    Query(shown): Query<Shown>,
) -> Result<Json<ClusterStatus>, ApiError> {
    let mut status = cluster::status(of(&gateway)?).await;
    if matches!(shown.partitions, Partitions::Troubled) {
        status.partitions.retain(PartitionStatus::is_troubled);
    }
    Ok(Json(status))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Add {
    node: i32,
    #[serde(default)]
    voter: bool,
}

pub(super) async fn add(Opened(gateway): Opened, asked: Asked<Add>) -> Result<Json<Value>, ApiError> {
    let Add { node, voter } = body(asked)?;
    cluster::add(of(&gateway)?, node, voter).await?;
    Ok(Json(json!({ "node": node })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    node: i32,
    #[serde(default)]
    cancel: bool,
}

pub(super) async fn drain(Opened(gateway): Opened, asked: Asked<Drain>) -> Result<Json<Value>, ApiError> {
    let Drain { node, cancel } = body(asked)?;
    cluster::drain(of(&gateway)?, node, cancel).await?;
    Ok(Json(json!({ "node": node, "draining": !cancel })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remove {
    node: i32,
}

pub(super) async fn remove(Opened(gateway): Opened, asked: Asked<Remove>) -> Result<Json<Value>, ApiError> {
    let Remove { node } = body(asked)?;
    cluster::remove(of(&gateway)?, node).await?;
    Ok(Json(json!({ "node": node })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reassign {
    partitions: Vec<Move>,
}

pub(super) async fn reassign(Opened(gateway): Opened, asked: Asked<Reassign>) -> Result<Json<Value>, ApiError> {
    let outcomes = cluster::reassign(of(&gateway)?, body(asked)?.partitions).await?;
    Ok(Json(json!({ "partitions": outcomes })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Elect {
    #[serde(default)]
    partitions: Option<Vec<Place>>,
}

pub(super) async fn elect(Opened(gateway): Opened, asked: Asked<Elect>) -> Result<Json<Value>, ApiError> {
    let outcomes = cluster::elect(of(&gateway)?, body(asked)?.partitions).await?;
    Ok(Json(json!({ "partitions": outcomes })))
}

type Asked<T> = Result<Json<T>, JsonRejection>;

fn body<T>(asked: Asked<T>) -> Result<T, ApiError> {
    asked.map(|Json(body)| body).map_err(|problem| ApiError::bad_request(problem.body_text()))
}

fn of(gateway: &Arc<Gateway>) -> Result<&Cluster, ApiError> {
    gateway.log.cluster().ok_or_else(|| ApiError::unavailable("this node is in no cluster"))
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> ApiError {
        let status = match &error {
            ChangeError::Refused(_) => StatusCode::CONFLICT,
            ChangeError::Unknown(_) => StatusCode::NOT_FOUND,
            ChangeError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        ApiError::new(status, error.to_string())
    }
}
