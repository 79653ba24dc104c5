//! Every path answers alike; `ms` says how long that takes.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::Query;
use axum::http::HeaderMap;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

async fn work(Query(query): Query<HashMap<String, u64>>, headers: HeaderMap, body: Bytes) -> Json<Value> {
    // The work that a request costs.
    tokio::time::sleep(Duration::from_millis(query.get("ms").copied().unwrap_or(0))).await;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Json(json!({
        "release": std::env::var("BATON_RELEASE").unwrap_or_else(|_| "none".into()),
        "pid": std::process::id(),
        "conn": header("x-conn"),
        "seq": header("x-seq"),
        "bytes": body.len(),
    }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let mut stop = signal(SignalKind::terminate())?;
    let stopped = async move {
        stop.recv().await;
    };
    axum::serve(listener, Router::new().fallback(work)).with_graceful_shutdown(stopped).await
}
