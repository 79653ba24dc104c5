//! The server: its address, its stores, and its life from start to stop.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::middleware;
use baton_release::disk::DiskError;
use baton_release::store::Custody;
use baton_store::artefact::{BucketError, BucketStore, FolderStore};
use baton_store::secrets::{SecretError, SecretSource};
use baton_store::state::{EmbeddedStore, RedisAddress, RedisStore, StateError, StateStore};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::access::{self, Access, AccessError, LedgerError, Place, SealError, SealKey};
use crate::api;
use crate::audit::{Audit, AuditError, Note, Writer};
use crate::board::Board;
use crate::chain::chain;
use crate::claim::{Claim, ClaimError};
use crate::clock::Clock;
use crate::gauge::{self, InvalidPrometheus, Prometheus, PrometheusLogin};
use crate::guard;
use crate::heartbeats::Heartbeats;
use crate::identity::Identity;
use crate::keeper::{Ask, Inbox, Keeper, inbox};
use crate::listen::{CallerAddress, Incoming};
use crate::secrets::{Allowed, AllowedError};
use crate::sessions::PeerKey;
use crate::space::Space;
use crate::tls::{self, Certificates, Tls, TlsError};
use crate::watcher::Watcher;

/// How long answers under way may take when the server stops. Sessions and long polls end at once.
const CLOSING_MAX: Duration = Duration::from_secs(5);
/// Nobody else reads what members and operators have said.
const DATA_DIR_MODE: u32 = 0o700;
/// The file that shows that files can be made in the data directory.
const TRIAL_FILE: &str = ".trial";
/// The state store in the data directory.
pub(crate) const STATE_FILE: &str = "state.redb";

/// What a server needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who may ask, and how they know whom they ask.
    pub callers: Callers,
    /// Where it keeps everything but the releases, and those too where nothing else is said. Made if it is not there.
    pub data_dir: PathBuf,
    /// Where it keeps deploys, slots, members and events.
    pub state: State,
    /// Where it keeps the releases.
    pub artefacts: Artefacts,
    /// The file with the key that seals who may do what, where that is kept with the deploys, for several servers. None keeps
    /// it in a file of the data directory.
    pub seal_key: Option<PathBuf>,
    /// The address of a Prometheus server, for rollouts that wait for a metric.
    pub prometheus: Option<String>,
    /// What that server is shown; it is in no settings of a release.
    pub prometheus_login: Option<PrometheusLogin>,
    /// The variables that say with which credentials it reads secrets: those that begin with `AWS_`.
    pub secrets: Vec<(String, String)>,
    /// The file with the list of which service may have which secret. None lets each have all.
    pub allowed_secrets: Option<PathBuf>,
}

/// Where deploys, slots, members and events are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// In a file of the data directory, for one server.
    File,
    /// In a Redis, which several servers may share.
    Redis(Box<RedisAddress>),
}

/// Who may ask, and how they know whom they ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callers {
    /// Anybody on this machine, without TLS.
    Anybody,
    /// Who has a token or is a member, without TLS: on this machine only, for a proxy that speaks TLS to the others.
    KnownInPlain,
    /// Who has a token or is a member, over TLS.
    Known(Certificates),
}

/// Where releases are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Artefacts {
    /// In a folder of the data directory.
    Folder,
    /// In a bucket.
    Bucket {
        /// Its address, see [`BucketStore::open`].
        url: String,
        /// The variables that say with which credentials.
        variables: Vec<(String, String)>,
    },
}

/// Why a server does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Others could reach it, and it would be open to them or to who listens on the way.
    #[error(
        "cannot listen at {address} {}: everybody who reaches that address could {}; \
         leave the flag out, or listen at 127.0.0.1",
        if *.open { "with --dev" } else { "with --plain" },
        if *.open { "deploy" } else { "read the tokens that are sent there" }
    )]
    NotLoopback {
        /// The address.
        address: SocketAddr,
        /// Whether it asks nobody who they are.
        open: bool,
    },
    /// The address is taken or not there.
    #[error("cannot listen at {address}: choose another address, or stop what listens there")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The data directory cannot be made, or no files in it.
    #[error("cannot keep data in {}: choose another directory with --data", .path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The data directory is another server's.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// Nobody can tell what there is in the data directory.
    #[error("cannot tell what the data directory has")]
    Identity(#[source] DiskError),
    /// Several servers would each have a list of tokens for itself.
    #[error(
        "servers that share a Redis share who may do what, sealed with a key that Redis has not: make one with \
         `(umask 077; head -c 32 /dev/urandom | base64 > seal.key)`, and give it to every server with --seal-key-file"
    )]
    NoSealKey,
    /// Several servers would each have releases that the others have not.
    #[error(
        "servers that share a Redis share their releases, which one server's own folder does not: name a bucket with --store \
         (s3://BUCKET/PREFIX, gs://… or az://…), the same one at every server"
    )]
    NoStore,
    /// It would ask nobody who they are, among servers that ask everybody.
    #[error(
        "cannot share {store} with --dev: the servers there ask everybody for a token, and this one would let whoever reaches it \
         deploy without one; leave --dev out and give it their --seal-key-file, or give it a store of its own (--state, \
         BATON_STATE)"
    )]
    ClosedFleet {
        /// The state store.
        store: String,
    },
    /// Nobody can be asked what is measured.
    #[error(transparent)]
    Prometheus(#[from] InvalidPrometheus),
    /// The key cannot be used.
    #[error("cannot use the key in {}", path.display())]
    SealKey {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SealError,
    },
    /// There is no TLS.
    #[error("cannot speak TLS")]
    Tls(#[from] TlsError),
    /// Nobody can be told apart.
    #[error("cannot tell who may do what")]
    Access(#[from] AccessError),
    /// Nothing can be written down.
    #[error("cannot keep the audit log")]
    Audit(#[from] AuditError),
    /// The state store cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The artefact store cannot be used.
    #[error("cannot use the artefact store")]
    Artefacts(#[from] DiskError),
    /// The bucket cannot be used.
    #[error("cannot use the artefact store")]
    Bucket(#[from] BucketError),
    /// Nobody knows which service may have which secret.
    #[error("cannot tell which service may have which secret")]
    Allowed(#[from] AllowedError),
    /// There is nothing to read secrets with.
    #[error("cannot read secrets")]
    Secrets(#[from] SecretError),
    /// There are no random numbers to be had.
    #[error("the system has no random numbers")]
    Randomness(#[source] getrandom::Error),
    /// The loop that decides cannot be started, or has ended before it was told to.
    #[error("the server has lost the thread that decides: start it again")]
    Keeper(#[source] Option<io::Error>),
    /// Connections cannot be taken any more.
    #[error("cannot take connections any more")]
    Serve(#[source] io::Error),
}

impl ServerError {
    /// Whether the same attempt may succeed later without anybody's doing: a server that has never seen who may do what cannot
    /// start while the state store is away that has it.
    pub const fn may_heal(&self) -> bool {
        match self {
            Self::Access(AccessError::Kept(LedgerError::State(error))) => error.may_heal(),
            Self::NotLoopback { .. }
            | Self::Listen { .. }
            | Self::DataDir { .. }
            | Self::Claim(_)
            | Self::Identity(_)
            | Self::NoSealKey
            | Self::NoStore
            | Self::ClosedFleet { .. }
            | Self::Prometheus(_)
            | Self::SealKey { .. }
            | Self::Tls(_)
            | Self::Access(_)
            | Self::Audit(_)
            | Self::State(_)
            | Self::Artefacts(_)
            | Self::Bucket(_)
            | Self::Allowed(_)
            | Self::Secrets(_)
            | Self::Randomness(_)
            | Self::Keeper(_)
            | Self::Serve(_) => false,
        }
    }
}

/// A server that has its address and its stores, and does nothing yet.
pub struct Server {
    address: SocketAddr,
    listener: TcpListener,
    keeper: Keeper,
    /// Where other servers write as well.
    watcher: Option<Watcher>,
    /// What it shares with them.
    shared: Option<String>,
    inbox: Inbox,
    state: api::Shared,
    tls: Option<Tls>,
    /// Whether it asks nobody who they are.
    open: bool,
    has_authority: bool,
    prometheus: Option<Prometheus>,
    audit: Writer,
    data_dir: PathBuf,
    /// Held until the server has ended.
    _claim: Claim,
}

impl Server {
    /// Takes the address and opens the stores. Connections wait until [`Server::run`]. A Redis that is away is waited for
    /// there; only where nobody can be told apart without it, that is an error, see [`ServerError::may_heal`].
    ///
    /// # Errors
    /// When the address is not on this machine though it must be, or is taken, when another server uses the data directory, or when
    /// what lies there cannot be read.
    pub fn bind(config: Config) -> Result<Self, ServerError> {
        let Config {
            listen,
            callers,
            data_dir,
            state,
            artefacts,
            seal_key,
            prometheus,
            prometheus_login,
            secrets,
            allowed_secrets,
        } = config;
        let open = callers == Callers::Anybody;
        if !listen.ip().is_loopback() && !matches!(callers, Callers::Known(_)) {
            return Err(ServerError::NotLoopback { address: listen, open });
        }
        if state != State::File && !open && seal_key.is_none() {
            return Err(ServerError::NoSealKey);
        }
        if state != State::File && !open && artefacts == Artefacts::Folder {
            return Err(ServerError::NoStore);
        }
        let allowed = allowed_secrets.map(Allowed::open).transpose()?;
        let prometheus = Prometheus::new(prometheus.as_deref(), prometheus_login)?;
        let failed = |source| ServerError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        DirBuilder::new()
            .recursive(true)
            .mode(DATA_DIR_MODE)
            .create(&data_dir)
            .and_then(|()| takes_files(&data_dir))
            .map_err(|source| ServerError::DataDir { path: data_dir.clone(), source })?;
        let claim = Claim::take(&data_dir)?;
        // Before anything is kept there, also where nobody is asked who they are: another start may ask.
        Identity::open(&data_dir).map_err(ServerError::Identity)?;
        let clock = Clock::start();
        let shared = match &state {
            State::File => None,
            State::Redis(address) => Some(address.to_string()),
        };
        let states: Arc<dyn StateStore> = match state {
            State::File => Arc::new(EmbeddedStore::open(&data_dir.join(STATE_FILE), clock.now())?),
            State::Redis(address) => Arc::new(open_redis(*address, clock)?),
        };
        if let Some(store) = shared.as_ref().filter(|_| open && is_closed(&*states)) {
            return Err(ServerError::ClosedFleet { store: store.clone() });
        }
        let access = match open {
            true => None,
            false => Some(Arc::new(open_access(&callers, &data_dir, seal_key, &states)?)),
        };
        let tls = match &callers {
            Callers::Anybody | Callers::KnownInPlain => None,
            Callers::Known(certificates) => {
                let authority = access.as_ref().and_then(|access| access.authority());
                Some(Tls::new(certificates, address, authority)?)
            }
        };
        let space = Space::of(&data_dir);
        if let Some(warning) = space.warning() {
            eprintln!("baton server: {warning}");
        }
        let watcher = shared.as_ref().map(|_| Watcher::new(Arc::clone(&states), access.clone()));
        let (audit, mut writer) = Audit::open(&data_dir, !open)?;
        if let Some(access) = &access {
            let_in(access, &data_dir, &mut writer);
        }
        // Nobody has asked the bucket anything yet.
        let doubtful = artefacts != Artefacts::Folder;
        let artefacts: Arc<dyn Custody> = match artefacts {
            Artefacts::Folder => Arc::new(FolderStore::open(&data_dir.join("artefacts"))?),
            Artefacts::Bucket { url, variables } => Arc::new(BucketStore::open(&url, variables)?),
        };
        let secrets = SecretSource::new(secrets)?;
        let (inbox, asked) = inbox();
        let (post, board) = watch::channel(Arc::new(Board::default()));
        let peer_key = PeerKey::new().map_err(ServerError::Randomness)?;
        let heartbeats = Heartbeats::default();
        let keeper = Keeper::new(Arc::clone(&states), clock, asked, heartbeats.clone(), post, peer_key)?;
        let has_authority = access.as_ref().is_some_and(|access| access.authority().is_some());
        let kept = api::Kept {
            states,
            artefacts,
            access,
            has_tls: tls.is_some(),
            given: tls.as_ref().and_then(|tls| tls.given.clone()),
            measures: prometheus.is_some(),
            allowed,
            audit,
            space,
        };
        let state = api::Shared::new(inbox.clone(), heartbeats, board, kept, clock, secrets)
            .map_err(ServerError::Randomness)?
            .doubting_artefacts(doubtful);
        Ok(Self {
            address,
            listener,
            keeper,
            watcher,
            shared,
            inbox,
            state,
            tls,
            open,
            has_authority,
            prometheus,
            audit: writer,
            data_dir,
            _claim: claim,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as clients write it.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The file with the first token, that of an admin, as long as nobody has moved it away; none where nobody needs one.
    pub fn first_token(&self) -> Option<PathBuf> {
        let file = access::first_token(&self.data_dir);
        (!self.open && file.exists()).then_some(file)
    }

    /// The certificate of the server's own authority, where it has one, for clients that are to trust it.
    pub fn authority(&self) -> Option<PathBuf> {
        self.has_authority.then(|| tls::authority_file(&self.data_dir))
    }

    /// Serves until `shutdown` comes to an end. When this returns, the data directory is free again.
    ///
    /// # Errors
    /// When it cannot go on.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), ServerError> {
        let Self {
            address,
            listener,
            keeper,
            watcher,
            shared,
            inbox,
            state,
            tls,
            open,
            prometheus,
            audit,
            ..
        } = self;
        let listen = |source| ServerError::Listen { address, source };
        let listener = tokio::net::TcpListener::from_std(listener).map_err(listen)?;
        let listener = Incoming::new(listener, tls.map(|tls| tls.config)).map_err(listen)?;
        let attending = state.attending.clone();
        let gauge = gauge::run(prometheus, state.board_receiver(), inbox.clone(), state.clock);
        let mut app = api::router(state);
        if open {
            app = app.layer(middleware::from_fn_with_state(address.port(), guard::check));
        }
        let app = app.into_make_service_with_connect_info::<CallerAddress>();
        // It ends when the last request has.
        let (last, written) = oneshot::channel();
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                audit.run();
                let _ = last.send(());
            })
            .map_err(|error| ServerError::Keeper(Some(error)))?;
        let runtime = Handle::current();
        let keeper = thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || keeper.run(&runtime))
            .map_err(|error| ServerError::Keeper(Some(error)))?;

        let (closes, closed) = oneshot::channel();
        let watching = watcher
            .map(|watcher| watcher.start(inbox.downgrade(), closes))
            .transpose()
            .map_err(|error| ServerError::Keeper(Some(error)))?;

        // It ends with the keeper.
        tokio::spawn(gauge);
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = axum::serve(listener, app).with_graceful_shutdown(async {
            // An error means that `stop` is gone, which means the same.
            let _ = stopped.await;
        });
        let mut serve = tokio::spawn(serve.into_future());
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            () = inbox.closed() => Err(ServerError::Keeper(None)),
            // An error means that nobody watches, or not any more.
            Ok(()) = closed => Err(ServerError::ClosedFleet { store: shared.unwrap_or_default() }),
            served = &mut serve => return served.map_err(io::Error::other).and_then(|served| served).map_err(ServerError::Serve),
        };
        // The keeper first: with it the sessions and the long polls end, which connections wait for.
        let _ = inbox.send(Ask::Stop).await;
        drop(inbox);
        let joined = tokio::task::spawn_blocking(move || {
            // It ends when there is nobody left whom it could tell.
            let watched = watching.map_or(Ok(()), JoinHandle::join);
            keeper.join().and(watched)
        });
        let joined = joined.await;
        let _ = stop.send(());
        if timeout(CLOSING_MAX, &mut serve).await.is_err() {
            serve.abort();
        }
        // They have ended with the keeper, and say so.
        attending.close();
        let _ = timeout(CLOSING_MAX, attending.wait()).await;
        // What was answered is in the log, and nothing is written to it any more.
        let _ = timeout(CLOSING_MAX, written).await;
        match joined {
            Ok(Ok(())) => ended,
            Ok(Err(_)) | Err(_) => Err(ServerError::Keeper(None)),
        }
    }
}

/// Whether files can be made in the data directory, whose names would mean nothing to who is told of one that cannot. That
/// there is no room for one is another matter: a server starts on a full disk.
fn takes_files(data_dir: &Path) -> io::Result<()> {
    let path = data_dir.join(TRIAL_FILE);
    match File::create(&path) {
        Ok(_) => fs::remove_file(&path),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotFound
            ) =>
        {
            Err(error)
        }
        Err(_) => Ok(()),
    }
}

/// Sees to it that somebody can make tokens. Where that cannot be, the others are served all the same.
fn let_in(access: &Access, data_dir: &Path, audit: &mut Writer) {
    match access.let_in(data_dir) {
        Ok(None) => {}
        Ok(Some(token)) => {
            let file = access::first_token(data_dir);
            eprintln!("baton server: another token of an admin was made, and is in {}", file.display());
            let (id, holder, role) = (token.id(), token.holder, token.role);
            let note = Note(format!("token {id} of {holder} with role {role} for all services"));
            audit.note(token.created, "start that lets an admin in", note);
        }
        Err(error) => eprintln!(
            "baton server: another token of an admin is needed, and cannot be made: start this server again once it can: {}",
            chain(&error)
        ),
    }
}

/// A Redis that may be away for now. What will not be otherwise by itself is told at once.
fn open_redis(address: RedisAddress, clock: Clock) -> Result<RedisStore, StateError> {
    let store = RedisStore::new(address, clock.now())?;
    match store.ready() {
        Err(error) if !error.may_heal() => Err(error),
        Ok(()) | Err(_) => Ok(store),
    }
}

/// Whether the servers that share this store ask who is there. Where it is away for now, the watcher finds out.
fn is_closed(states: &dyn StateStore) -> bool {
    states.access().is_ok_and(|list| list.is_some())
}

/// The list of who may do what, where this server keeps it.
fn open_access(
    callers: &Callers,
    data_dir: &Path,
    seal_key: Option<PathBuf>,
    states: &Arc<dyn StateStore>,
) -> Result<Access, ServerError> {
    let place = match seal_key {
        None => Place::File,
        Some(path) => {
            let key = SealKey::read(&path).map_err(|source| ServerError::SealKey { path, source })?;
            Place::Store { store: Arc::clone(states), key }
        }
    };
    let own = matches!(callers, Callers::Known(Certificates::Own { .. }));
    Ok(Access::open(data_dir, place, own)?)
}
