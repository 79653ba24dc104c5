//! The real server, in this process.

use std::net::SocketAddr;
use std::path::Path;
use std::thread::JoinHandle;

use baton_control::{Artefacts, Callers, Certificates, Config, Server, State};
use tokio::sync::oneshot;

/// A server that runs until it is dropped.
pub struct Control {
    pub url: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts a server on a free port, with its data in this directory.
    pub fn start(data: &Path) -> Self {
        Self::start_at("http://127.0.0.1:0", data)
    }

    /// Starts a server at this address.
    pub fn start_at(url: &str, data: &Path) -> Self {
        let listen = url.strip_prefix("http://").unwrap().parse().unwrap();
        Self::start_for(Callers::Anybody, listen, data)
    }

    /// Starts a server that asks who is there, on a free port.
    pub fn start_closed(data: &Path, certificates: Certificates) -> Self {
        Self::start_for(Callers::Known(certificates), "127.0.0.1:0".parse().unwrap(), data)
    }

    fn start_for(callers: Callers, listen: SocketAddr, data: &Path) -> Self {
        let config = Config {
            listen,
            callers,
            data_dir: data.to_owned(),
            state: State::File,
            artefacts: Artefacts::Folder,
            seal_key: None,
            prometheus: None,
            prometheus_login: None,
            secrets: Vec::new(),
            allowed_secrets: None,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = runtime.block_on(async { Server::bind(config).unwrap() });
        let url = server.url();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async { server.run(async { drop(stopped.await) }).await.unwrap() });
        });
        Self { url, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
