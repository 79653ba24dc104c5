//! Which bucket an address means, and with which credentials.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStoreScheme, RetryConfig};
use url::Url;

use super::Bucket;

/// How long a request may take: the longest pack at 35 kB/s, as for who pushes it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(180);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request is tried again, after pauses of a random length that grow. Who pushes or fetches tries again as well, and
/// a server's room for requests must not be taken up by a bucket that is away.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
/// How often at the most.
const RETRIES: usize = 5;

/// Why a bucket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    /// The address is none, or not of a bucket.
    #[error(
        "{url:?} is not the address of a bucket: write s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
    )]
    Address {
        /// What was given.
        url: String,
    },
    /// The settings of the environment make no sense.
    #[error("cannot use {url}: set the variables that begin with {prefix}_ as docs/reference/stores.md says")]
    Settings {
        /// The address.
        url: String,
        /// How the variables begin.
        prefix: &'static str,
        /// What is wrong.
        #[source]
        source: Error,
    },
    /// No threads can be started.
    #[error("cannot start the threads that talk to the bucket")]
    Threads(#[from] io::Error),
}

/// The bucket at this address.
pub(super) fn open(
    text: &str,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Bucket, BucketError> {
    let bad = || BucketError::Address { url: text.to_owned() };
    let url = Url::parse(text).map_err(|_| bad())?;
    if url.query().is_some() || url.fragment().is_some() || url.password().is_some() {
        return Err(bad());
    }
    let (scheme, prefix) = ObjectStoreScheme::parse(&url).map_err(|_| bad())?;
    // One that is set already is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = |prefix| move |source| BucketError::Settings { url: text.to_owned(), prefix, source };
    let variables = variables.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let of = |prefix: &'static str| move |(name, _): &(String, String)| name.starts_with(prefix);
    match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let start =
                AmazonS3Builder::new().with_url(text).with_retry(retry()).with_client_options(client());
            let set = |builder: AmazonS3Builder, (name, value): (String, String)| match name
                .parse::<AmazonS3ConfigKey>()
            {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            };
            let built = variables.filter(of("aws_")).fold(start, set).build();
            Ok(bucket(built.map_err(settings("AWS"))?, prefix))
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let start = GoogleCloudStorageBuilder::new()
                .with_url(text)
                .with_retry(retry())
                .with_client_options(client());
            let set =
                |builder: GoogleCloudStorageBuilder, (name, value): (String, String)| match name
                    .parse::<GoogleConfigKey>(
                ) {
                    Ok(key) => builder.with_config(key, value),
                    Err(_) => builder,
                };
            let built = variables.filter(of("google_")).fold(start, set).build();
            Ok(bucket(built.map_err(settings("GOOGLE"))?, prefix))
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let start =
                MicrosoftAzureBuilder::new().with_url(text).with_retry(retry()).with_client_options(client());
            let set = |builder: MicrosoftAzureBuilder, (name, value): (String, String)| match name
                .parse::<AzureConfigKey>(
            ) {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            };
            let built = variables.filter(of("azure_")).fold(start, set).build();
            Ok(bucket(built.map_err(settings("AZURE"))?, prefix))
        }
        _ => Err(bad()),
    }
}

fn bucket<T: object_store::ObjectStore + object_store::signer::Signer>(store: T, prefix: Path) -> Bucket {
    let store = Arc::new(store);
    Bucket { objects: Arc::clone(&store) as _, signer: store, prefix }
}

fn retry() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() }
}

fn client() -> ClientOptions {
    ClientOptions::new().with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_address_names_a_bucket_and_a_prefix() {
        let azure = [("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")];
        for (url, prefix, set) in [
            ("s3://bucket", "", &[][..]),
            ("s3://bucket/", "", &[]),
            ("s3://bucket/some/prefix/", "some/prefix", &[]),
            ("gs://bucket/prefix", "prefix", &[]),
            ("az://container/prefix", "prefix", &azure),
            // Other programs' variables are nobody's business.
            ("s3://bucket/prefix", "prefix", &[("BUCKET", "other"), ("AWS_PROFILE_OF_SOMEBODY", "x")]),
        ] {
            let opened = open(url, variables(set)).unwrap();
            assert_eq!(opened.prefix.as_ref(), prefix, "{url}");
        }
    }

    #[test]
    fn what_is_no_bucket_is_refused_with_what_to_write() {
        for url in [
            "",
            "bucket",
            "/var/lib/baton",
            "s3:",
            "s3://",
            "file:///tmp",
            "memory:///",
            "https://example.com/x",
            "ftp://bucket/x",
            "s3://bucket/x?y=z",
            "s3://bucket/x#y",
            "s3://key:secret@bucket/x",
        ] {
            let refused = open(url, variables(&[])).map(|_| ()).unwrap_err();
            assert!(refused.to_string().contains("s3://BUCKET/PREFIX"), "{url}: {refused}");
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (url, set) in
            [("az://container/prefix", &[][..]), ("s3://bucket/x", &[("AWS_CONDITIONAL_PUT", "perhaps")])]
        {
            let refused = open(url, variables(set)).map(|_| ()).unwrap_err();
            assert!(refused.to_string().contains("docs/reference/stores.md"), "{url}: {refused}");
        }
    }
}
