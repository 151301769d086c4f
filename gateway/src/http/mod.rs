//! The HTTP door: metrics, health, the JSON API and the console page.

mod budget;
mod cluster;
mod console;
mod error;
#[cfg(test)]
mod fault_tests;
mod front;
mod groups;
mod health;
mod ingest;
mod lake;
mod limits;
mod listener;
mod openapi;
mod records;
mod rules;
mod status;
#[cfg(test)]
mod tests;
mod topics;

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use error::ApiError;
pub use front::Front;
pub(crate) use limits::MAX_CONNECTIONS;
use limits::{MAX_BODY_BYTES, TIMEOUTS, Timeouts, UNTIMED};
use listener::{InFlight, LimitedListener};

/// A path, its methods for the description, and what answers it.
type Route = (&'static str, &'static [&'static str], MethodRouter<Arc<Front>>);

fn routes() -> Vec<Route> {
    vec![
        ("/", &["get"], get(console::page)),
        ("/console.css", &["get"], get(console::style)),
        ("/console.js", &["get"], get(console::script)),
        ("/healthz", &["get"], get(health::alive)),
        ("/readyz", &["get"], get(health::ready)),
        ("/metrics", &["get"], get(health::metrics)),
        ("/api/v1/status", &["get"], get(status::status)),
        ("/api/v1/topics", &["get"], get(topics::list)),
        ("/api/v1/topics/{topic}", &["get"], get(topics::describe)),
        ("/api/v1/topics/{topic}/records", &["get", "post"], get(records::read).post(ingest::append)),
        ("/api/v1/groups", &["get"], get(groups::list)),
        ("/api/v1/clients", &["get"], get(status::clients)),
        ("/api/v1/alerts", &["get"], get(rules::alerts)),
        ("/api/v1/rules", &["get"], get(rules::list)),
        ("/api/v1/rules/reload", &["post"], post(rules::reload)),
        ("/api/v1/lake", &["get"], get(lake::status)),
        ("/api/v1/lake/flush", &["post"], post(lake::flush)),
        ("/api/v1/lake/verify", &["get"], get(lake::verify)),
        ("/api/v1/cluster", &["get"], get(cluster::status)),
        ("/api/v1/cluster/add", &["post"], post(cluster::add)),
        ("/api/v1/cluster/drain", &["post"], post(cluster::drain)),
        ("/api/v1/cluster/remove", &["post"], post(cluster::remove)),
        ("/api/v1/cluster/reassign", &["post"], post(cluster::reassign)),
        ("/api/v1/cluster/elect", &["post"], post(cluster::elect)),
        ("/api/v1/openapi.json", &["get"], get(openapi::document)),
    ]
}

fn router() -> axum::Router<Arc<Front>> {
    let mut router = axum::Router::new();
    for (path, _, answer) in routes() {
        router = router.route(path, answer);
    }
    router
        .fallback(async || {
            ApiError::not_found("there is nothing at this path; /api/v1/openapi.json lists what there is")
        })
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
}

/// Serves at most so many connections at once until shutdown, then answers the requests in flight.
pub async fn serve(front: Arc<Front>, listener: TcpListener, max_connections: usize, shutdown: CancellationToken) {
    let sampling = front.clone();
    let end = shutdown.clone();
    let sampler = async move {
        let mut ticks = tokio::time::interval(crate::metrics::live::INTERVAL);
        loop {
            tokio::select! {
                _ = ticks.tick() => sampling.sample(),
                () = end.cancelled() => break,
            }
        }
    };
    tokio::join!(serve_routes(router(), front, listener, max_connections, TIMEOUTS, shutdown), sampler);
}

async fn serve_routes(
    routes: axum::Router<Arc<Front>>,
    front: Arc<Front>,
    listener: TcpListener,
    max_connections: usize,
    timeouts: Timeouts,
    shutdown: CancellationToken,
) {
    let listener = LimitedListener::new(listener, max_connections, front.clone(), timeouts);
    let routes = routes.layer(middleware::from_fn_with_state((front.clone(), timeouts), guard)).with_state(front);
    let service = routes.into_make_service_with_connect_info::<InFlight>();
    let server = axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned());
    if let Err(error) = server.into_future().await {
        tracing::error!("the HTTP door closed: {error}");
    }
}

/// Around every request: refuses writes that another site's page makes a browser send, bounds its time, counts it.
async fn guard(State((front, timeouts)): State<(Arc<Front>, Timeouts)>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let _working = request.extensions().get::<ConnectInfo<InFlight>>().map(|requests| requests.0.begin());
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |p| p.as_str().to_owned());
    let response = if request.method() != Method::GET && is_cross_site(&request) {
        ApiError::forbidden("requests that change something are not accepted from pages of another site")
            .into_response()
    } else if content_length(&request).is_some_and(|length| length > MAX_BODY_BYTES as u64) {
        // Before the client has sent it all in vain.
        ApiError::body_too_large().into_response()
    } else if UNTIMED.contains(&route.as_str()) {
        next.run(request).await
    } else {
        match tokio::time::timeout(timeouts.request, next.run(request)).await {
            Ok(response) => response,
            Err(_) => ApiError::timeout(timeouts.request).into_response(),
        }
    };
    if let Some(gateway) = front.gateway() {
        gateway.metrics.http.answered(&route, response.status().as_u16(), started.elapsed());
    }
    response
}

fn content_length(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_cross_site(request: &Request) -> bool {
    let text = |name| request.headers().get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return false };
    let origin_host = origin.split_once("://").map_or(origin, |(_, host)| host);
    text(header::HOST) != Some(origin_host)
}
