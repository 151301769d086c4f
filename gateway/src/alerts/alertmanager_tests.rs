//! An Alertmanager is kept told: it forgets a fired alert that is not posted again.

use std::sync::{Mutex, PoisonError};

use axum::extract::State as Shared;
use axum::routing::post;
use chrono::{DateTime, Utc};
use serde_json::Value;

use super::tests::{RULES, Rig, eventually, reading};
use super::*;

type Posts = Arc<Mutex<Vec<Vec<Value>>>>;

/// Takes everything, as Alertmanager does, and keeps what each POST held.
async fn alertmanager() -> (String, Posts) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let posts = Posts::default();
    let take = async |Shared(posts): Shared<Posts>, axum::Json(alerts): axum::Json<Vec<Value>>| {
        posts.lock().unwrap_or_else(PoisonError::into_inner).push(alerts);
    };
    let routes = axum::Router::new().route("/api/v2/alerts", post(take)).with_state(posts.clone());
    tokio::spawn(axum::serve(listener, routes).into_future());
    (url, posts)
}

fn taken(posts: &Posts) -> Vec<Vec<Value>> {
    posts.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Meters of a POST, and in how many seconds from now their alerts end.
fn ends(post: &[Value]) -> Vec<(String, i64)> {
    let end = |alert: &Value| {
        let end = alert["endsAt"].as_str().and_then(|text| DateTime::parse_from_rfc3339(text).ok()).expect("an end");
        (end.with_timezone(&Utc) - Utc::now()).num_seconds()
    };
    let mut ends: Vec<(String, i64)> =
        post.iter().map(|alert| (alert["labels"]["meter"].as_str().expect("a meter").to_owned(), end(alert))).collect();
    ends.sort();
    ends
}

fn meters(post: &[(String, i64)]) -> Vec<&str> {
    post.iter().map(|(meter, _)| meter.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fires_is_posted_again_and_again_until_it_is_resolved() {
    let (url, posts) = alertmanager().await;
    let (_folder, rig) = Rig::with_readings(&format!("{RULES}receivers:\n- alertmanager: {{url: \"{url}\"}}\n")).await;
    // m3 is pending only.
    rig.publish(0, &[reading("m1", 0, 200.0), reading("m2", 0, 200.0), reading("m3", 0, 260.0)]).await;
    rig.settle().await;
    let told_since = |from: usize| taken(&posts)[from..].iter().map(|post| ends(post)).collect::<Vec<_>>();
    for round in 0..2 {
        let before = taken(&posts).len();
        let all = eventually("a POST of all that fire", async || {
            told_since(before).into_iter().find(|post| meters(post) == ["m1", "m2"])
        });
        let all = all.await;
        assert!(all.iter().all(|(_, end)| (180..=240).contains(end)), "round {round}: {all:?}");
    }

    let before = taken(&posts).len();
    rig.publish(0, &[reading("m1", 1, 230.0)]).await;
    rig.settle().await;
    let after = taken(&posts).len();
    let ended = |post: &Vec<(String, i64)>| meters(post) == ["m1"] && post[0].1 < 0;
    assert!(told_since(before).iter().any(ended), "m1 ended in the past");
    for _ in 0..2 {
        let seen = taken(&posts).len();
        eventually("a POST of what still fires", async || {
            told_since(seen).iter().any(|post| meters(post) == ["m2"]).then_some(())
        })
        .await;
    }
    assert!(told_since(after).iter().all(|post| meters(post) == ["m2"]), "{:?}", told_since(after));
    rig.stop().await;
}
