//! Where a bucket's requests run, so that everybody else can simply wait for them.

use std::error::Error as StdError;
use std::sync::mpsc;
use std::{fmt, io};

use baton_release::store::{Kind, StoreError};
use object_store::Error;
use tokio::runtime::{Builder, Runtime};

use crate::innermost::innermost;

/// Threads for requests. They wait for the network; the bytes are checked by who asked for them.
const THREADS: usize = 2;

/// The runtime that the requests need, on threads of its own.
pub(super) struct Background(Option<Runtime>);

impl Background {
    pub(super) fn start() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(THREADS).thread_name("bucket").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Does this, and waits for it. It may be called from everywhere: no thread of another runtime enters this one.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        attempted: &str,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, result) = mpsc::sync_channel(1);
        if let Some(runtime) = &self.0 {
            runtime.spawn(async move { done.send(work.await) });
        }
        match result.recv() {
            Ok(result) => result.map_err(|error| failure(attempted, &error)),
            Err(gone) => Err(StoreError::new(Kind::Unavailable, attempted).because(gone)),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Nobody waits for anything any more; and a runtime that waits cannot be dropped by another one's thread.
            runtime.shutdown_background();
        }
    }
}

fn failure(attempted: &str, error: &Error) -> StoreError {
    let kind = match error {
        Error::NotFound { .. } => Kind::Missing,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Kind::Denied,
        Error::AlreadyExists { .. } | Error::Precondition { .. } => Kind::Conflict,
        // A server that fails or is away, and what a later version of the client may add.
        _ => Kind::Unavailable,
    };
    StoreError::new(kind, attempted).because(Cause::of(error))
}

/// Why a bucket does not do what was asked. Its client says that four times around what happened.
#[derive(Debug)]
struct Cause {
    /// Whom it was asked, as `https://HOST:PORT`.
    asked: Option<String>,
    why: String,
    /// Whether nothing has come back at all.
    is_unheard: bool,
}

impl Cause {
    fn of(error: &Error) -> Self {
        let cause = innermost(error);
        let is_unheard = cause.is::<io::Error>();
        Self { asked: asked(error), why: cause.to_string(), is_unheard }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(asked) = &self.asked {
            write!(f, "{asked}: ")?;
        }
        f.write_str(&self.why)?;
        if self.is_unheard {
            f.write_str(": is it there, and may this server reach it?")?;
        }
        Ok(())
    }
}

impl StdError for Cause {}

/// Whom a request went to. The client tells it in its sentence only, whole, and not where that is confidential.
fn asked(error: &Error) -> Option<String> {
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.find_map(|cause| {
        let text = cause.to_string();
        let url = text.split(' ').find(|word| word.starts_with("http://") || word.starts_with("https://"))?;
        let (scheme, place) = url.split_once("://")?;
        let host = place.split(['/', '?']).next()?;
        Some(format!("{scheme}://{host}"))
    })
}
