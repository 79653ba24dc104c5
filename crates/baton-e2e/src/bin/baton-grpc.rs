//! A gRPC server with nothing but `grpc.health.v1`, on the listening socket that is its standard input.
//!
//! `baton-grpc SERVICE STATUS`: what it answers for that service, `serving` or `not-serving`.

use std::os::fd::AsFd;

use anyhow::{Context, bail};
use tokio_stream::wrappers::TcpListenerStream;
use tonic_health::ServingStatus;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let service = arguments.next().context("which service?")?;
    let status = match arguments.next().as_deref() {
        Some("serving") => ServingStatus::Serving,
        Some("not-serving") => ServingStatus::NotServing,
        other => bail!("{other:?} is neither serving nor not-serving"),
    };
    let listener = std::net::TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status(service, status).await;
        let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener)?);
        let stopped = async {
            let mut terminate =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
            match &mut terminate {
                Some(terminate) => drop(terminate.recv().await),
                None => std::future::pending().await,
            }
        };
        tonic::transport::Server::builder()
            .add_service(health)
            .serve_with_incoming_shutdown(incoming, stopped)
            .await?;
        Ok(())
    })
}
