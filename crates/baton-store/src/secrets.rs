//! Values that others keep for control: AWS Secrets Manager, the parameter store of AWS Systems Manager, objects in S3.
//!
//! The first two are one signed POST of JSON each, so that the client of the buckets does for them as well: it brings the
//! credentials, whichever way control has got some, the signature and the connection.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use baton_core::run::secrets::{Aws, Pinned, Place, Reference, SECRET_BYTES_MAX, SECRETS_BYTES_MAX, Secret};
use futures_util::stream::{self, StreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, ReqwestConnector};
use object_store::path::Path;
use object_store::{ClientOptions, Error, GetOptions, ObjectStore, RetryConfig};
use tokio::sync::Semaphore;

use crate::innermost::innermost;

/// How long a request may take, and a connection: members wait for the answer before they launch.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often something is asked for that fails for a reason that passes, and the pause before the second time.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
/// How many values are asked for at once: far below what any of them allows.
const REQUESTS: usize = 8;
/// How long a value is kept here: a phase of a rollout asks for the same values within it, and the parameter store of
/// Systems Manager answers 40 times a second.
const KEPT: Duration = Duration::from_secs(60);
/// The same of a failure: all who ask while somebody is away are told so by one question.
const FAILURE_KEPT: Duration = Duration::from_secs(2);
/// The longest answer: a value may be six times as long in JSON.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The region where nothing is said, as for buckets.
const REGION: &str = "us-east-1";

/// Where values are asked for.
pub struct SecretSource {
    variables: Vec<(String, String)>,
    client: ClientOptions,
    http: HttpClient,
    credentials: OnceLock<AwsCredentialProvider>,
    room: Semaphore,
    answers: Arc<Mutex<BTreeMap<Key, Answer>>>,
}

/// Who has a value, and which version is meant, if not the one that is current.
type Key = (Place, Option<String>);
/// What came of asking. Who asks holds it, so that others wait for the same answer.
type Answer = Arc<tokio::sync::Mutex<Option<Answered>>>;
type Asked = Result<Found, Arc<SecretError>>;

struct Answered {
    asked: Instant,
    until: Instant,
    said: Asked,
}

/// A value, and which version of it that is, where there are versions.
#[derive(Debug, Clone)]
struct Found {
    text: Secret,
    version: Option<String>,
}

/// Why a value is not to be had. It never tells what a value is.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The credentials do not allow it, or there is no such value, or it cannot be one of a variable.
    #[error("{0}")]
    Refused(String),
    /// It fails for now.
    #[error("{0}")]
    Unavailable(String),
    /// Nobody is there, or what is there fails.
    #[error("{service} does not answer: {why}")]
    Away {
        /// Which of the services.
        service: &'static str,
        /// What happened, in the words of the innermost cause: those around it only say that it happened.
        why: String,
    },
    /// The client of the buckets cannot be made, or gets no credentials.
    #[error("control cannot read it")]
    Client(#[from] Error),
}

impl SecretSource {
    /// A source with the credentials that these variables of the environment, those that begin with `AWS_`, tell of.
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// There is no client for HTTP.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, SecretError> {
        // One that is set already is the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let variables: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with("AWS_")).collect();
        let plain = variables.iter().any(|(name, value)| name == "AWS_ALLOW_HTTP" && value == "true");
        let client = ClientOptions::new()
            .with_timeout(REQUEST_TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_allow_http(plain);
        let http = ReqwestConnector::default().connect(&client)?;
        let room = Semaphore::new(REQUESTS);
        Ok(Self { variables, client, http, credentials: OnceLock::new(), room, answers: Arc::default() })
    }

    /// The values of these references, as far as control resolves them.
    ///
    /// # Errors
    /// One that is not to be had, and why.
    pub async fn values(
        &self,
        wanted: &[Pinned],
    ) -> Result<Vec<(Reference, Secret)>, (Reference, Arc<SecretError>)> {
        let wanted = wanted.iter().filter_map(|pinned| Some((pinned, pinned.reference.aws()?)));
        let wanted: Vec<(&Pinned, &Aws)> = wanted.collect();
        let keys = wanted.iter().map(|(pinned, aws)| (aws.place.clone(), pinned.version.clone()));
        let found = self.all(keys.collect(), None).await;
        let mut values = Vec::new();
        let mut bytes = 0;
        for (Pinned { reference, version }, aws) in wanted {
            let failed = |error: Arc<SecretError>| (reference.clone(), error);
            let found = found[&(aws.place.clone(), version.clone())].clone().map_err(failed)?;
            let value = read::value(aws, found.text).map_err(|error| failed(error.into()))?;
            bytes += value.reveal().len();
            if bytes > SECRETS_BYTES_MAX {
                let why =
                    format!("the secrets of the release are more than {SECRETS_BYTES_MAX} bytes together");
                return Err(failed(SecretError::Refused(why).into()));
            }
            values.push((reference.clone(), value));
        }
        Ok(values)
    }

    /// Which versions of these values are current, in their order; none where a store keeps no versions. Several references
    /// to one place get the same version, whoever changes it meanwhile.
    ///
    /// # Errors
    /// The index of one that is not to be had, and why.
    pub async fn versions(&self, wanted: &[&Aws]) -> Result<Vec<Option<String>>, (usize, Arc<SecretError>)> {
        let keys = wanted.iter().map(|aws| (aws.place.clone(), None)).collect();
        let found = self.all(keys, Some(Instant::now())).await;
        let version = |(index, aws): (usize, &&Aws)| {
            let Found { text, version } =
                found[&(aws.place.clone(), None)].clone().map_err(|error| (index, error))?;
            read::value(aws, text).map(|_| version).map_err(|error| (index, error.into()))
        };
        wanted.iter().enumerate().map(version).collect()
    }

    /// Asks for each once, for several at a time. Nothing counts that was asked before `since`.
    async fn all(&self, keys: BTreeSet<Key>, since: Option<Instant>) -> BTreeMap<Key, Asked> {
        let ask = |key: Key| async move {
            let said = self.found(&key, since).await;
            (key, said)
        };
        stream::iter(keys).map(ask).buffer_unordered(REQUESTS).collect().await
    }

    async fn found(&self, key: &Key, since: Option<Instant>) -> Asked {
        let answer = Arc::clone(self.answers().entry(key.clone()).or_default());
        let mut answered = answer.lock().await;
        let counts = |answered: &&Answered| {
            answered.until > Instant::now() && since.is_none_or(|since| answered.asked >= since)
        };
        if let Some(answered) = answered.as_ref().filter(counts) {
            return answered.said.clone();
        }
        // It is never closed.
        let _turn = self.room.acquire().await;
        let asked = Instant::now();
        let said = self.ask(&key.0, key.1.as_deref()).await.and_then(of_length).map_err(Arc::new);
        let kept = if said.is_ok() { KEPT } else { FAILURE_KEPT };
        *answered = Some(Answered { asked, until: Instant::now() + kept, said: said.clone() });
        drop(answered);
        self.forget_after(kept, key.clone());
        said
    }

    /// Nothing is here for longer than it counts.
    fn forget_after(&self, kept: Duration, key: Key) {
        let answers = Arc::clone(&self.answers);
        tokio::spawn(async move {
            tokio::time::sleep(kept).await;
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            let counts = |answered: &Answered| answered.until > Instant::now();
            // Whoever asks just now sees to it again.
            let old = answers
                .get(&key)
                .is_some_and(|answer| answer.try_lock().is_ok_and(|it| !it.as_ref().is_some_and(counts)));
            if old {
                answers.remove(&key);
            }
        });
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<Key, Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, place: &Place, version: Option<&str>) -> Result<Found, SecretError> {
        match place {
            Place::S3 { bucket, object } => self.ask_s3(bucket, object, version).await,
            Place::SecretsManager(name) => {
                let body = read::ask_secrets_manager(name, version);
                let target = "secretsmanager.GetSecretValue";
                read::secrets_manager(&self.post_patiently("secretsmanager", target, &body).await?)
            }
            Place::Ssm(name) => {
                let body = read::ask_ssm(name, version)?;
                read::ssm(&self.post_patiently("ssm", "AmazonSSM.GetParameter", &body).await?)
            }
        }
    }

    async fn ask_s3(&self, bucket: &str, object: &str, version: Option<&str>) -> Result<Found, SecretError> {
        let store = self.bucket(bucket)?;
        let path =
            Path::parse(object).map_err(|_| SecretError::Refused("no object has this name".to_owned()))?;
        let options = GetOptions { version: version.map(str::to_owned), ..GetOptions::default() };
        let object = match store.get_opts(&path, options).await {
            Err(Error::NotFound { .. }) => {
                return Err(SecretError::Refused("there is no such object".to_owned()));
            }
            Err(Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) => {
                return Err(SecretError::Refused("S3 does not let control read it".to_owned()));
            }
            object => object.map_err(|error| away("s3", &error))?,
        };
        if object.meta.size > SECRET_BYTES_MAX as u64 {
            return Err(too_long());
        }
        // Where a bucket has no versions it says so by none, or by this word.
        let version = object.meta.version.clone().filter(|version| version != "null");
        let bytes = object.bytes().await.map_err(|error| away("s3", &error))?.to_vec();
        Ok(Found { text: read::text(bytes)?, version })
    }

    fn bucket(&self, bucket: &str) -> Result<AmazonS3, Error> {
        self.builder(bucket).with_credentials(self.credentials()?).build()
    }

    /// Whichever way there are some; what has to be fetched for it is fetched once, and again when it runs out.
    fn credentials(&self) -> Result<AwsCredentialProvider, Error> {
        if let Some(known) = self.credentials.get() {
            return Ok(known.clone());
        }
        // They are the same for all buckets, and nothing is asked of this one.
        let made = self.builder("none").build()?.credentials().clone();
        Ok(self.credentials.get_or_init(|| made).clone())
    }

    fn builder(&self, bucket: &str) -> AmazonS3Builder {
        let retry = RetryConfig {
            max_retries: TRIES as usize - 1,
            retry_timeout: REQUEST_TIMEOUT,
            ..RetryConfig::default()
        };
        let start = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(retry);
        let start = start.with_client_options(self.client.clone());
        let set = |builder: AmazonS3Builder, (name, value): &(String, String)| {
            match name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                // Which bucket is meant stands in the reference.
                Ok(AmazonS3ConfigKey::Bucket) | Err(_) => builder,
                Ok(key) => builder.with_config(key, value),
            }
        };
        self.variables.iter().fold(start, set)
    }

    /// The client of the buckets does this by itself.
    async fn post_patiently(
        &self,
        service: &'static str,
        target: &str,
        body: &str,
    ) -> Result<Vec<u8>, SecretError> {
        let mut pause = PAUSE;
        for _ in 1..TRIES {
            match self.post(service, target, body.to_owned()).await {
                Err(SecretError::Unavailable(_) | SecretError::Away { .. }) => {
                    tokio::time::sleep(pause).await;
                }
                done => return done,
            }
            pause *= 2;
        }
        self.post(service, target, body.to_owned()).await
    }

    /// Sends a question in JSON, signed, to a service of AWS.
    async fn post(&self, service: &'static str, target: &str, body: String) -> Result<Vec<u8>, SecretError> {
        let credential = self.credentials()?.get_credential().await?;
        let region = self.variable(&["AWS_REGION", "AWS_DEFAULT_REGION"]).unwrap_or(REGION);
        let endpoint = match service {
            "ssm" => self.variable(&["AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL"]),
            _ => self.variable(&["AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"]),
        };
        let own = format!("https://{service}.{region}.amazonaws.com");
        let url = format!("{}/", endpoint.unwrap_or(&own).trim_end_matches('/'));
        let request = http::Request::post(&url)
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", target)
            .body(body.into());
        let mut request: HttpRequest =
            request.map_err(|_| SecretError::Refused(format!("{url:?} is not the address of a service")))?;
        AwsAuthorizer::new(&credential, service, region).try_authorize(&mut request, None)?;
        let answer = self.http.execute(request).await.map_err(|error| away(service, &error))?;
        let status = answer.status();
        let mut parts = answer.into_body().bytes_stream();
        let mut body = Vec::new();
        while let Some(part) = parts.next().await {
            body.extend_from_slice(&part.map_err(|error| away(service, &error))?);
            if body.len() > ANSWER_BYTES_MAX {
                let why = format!("{service} answers with more than {ANSWER_BYTES_MAX} bytes");
                return Err(SecretError::Refused(why));
            }
        }
        if status.is_success() { Ok(body) } else { Err(read::refusal(service, status.as_u16(), &body)) }
    }

    fn variable(&self, names: &[&str]) -> Option<&str> {
        let value =
            |name: &&str| self.variables.iter().find(|(known, value)| known == name && !value.is_empty());
        names.iter().find_map(value).map(|(_, value)| value.as_str())
    }
}

fn of_length(found: Found) -> Result<Found, SecretError> {
    match found.text.reveal().len() {
        0..=SECRET_BYTES_MAX => Ok(found),
        _ => Err(too_long()),
    }
}

fn too_long() -> SecretError {
    SecretError::Refused(format!("it is longer than {SECRET_BYTES_MAX} bytes"))
}

fn away(service: &'static str, error: &(dyn StdError + 'static)) -> SecretError {
    SecretError::Away { service, why: innermost(error).to_string() }
}
