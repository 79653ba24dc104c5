//! Where Redis is.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use redis::{Client, ClientTlsConfig, IntoConnectionInfo, RedisError, TlsCertificates};
use url::Url;

use crate::state::FLEET;

/// Where Redis listens if nothing else is said.
const PORT: u16 = 6379;
/// Where Sentinel does.
const SENTINEL_PORT: u16 = 26379;
/// Most copies that can be asked for: more replicas than anybody has.
const COPIES_MAX: u32 = 100;

/// The address of a Redis, and what to use it with: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE][?OPTION=…]`.
///
/// `rediss` is TLS. Several hosts, separated by commas, are nodes of a cluster, any of them. `redis+sentinel` and
/// `rediss+sentinel` name Sentinels and, in the place of the database, the primary that they watch.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisAddress {
    tls: bool,
    /// `USER:PASSWORD@`, encoded as in an address; nobody is shown it.
    login: String,
    /// The same for the Sentinels, which have users of their own.
    sentinel_login: String,
    hosts: Vec<Host>,
    /// The primary by its name, where the hosts are Sentinels.
    pub(super) watched: Option<String>,
    database: u32,
    pub(super) prefix: String,
    /// How many nodes must have what is written, the primary among them.
    pub(super) copies: u32,
    ca: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    name: String,
    port: u16,
}

/// What is wrong with an address. It never shows the address, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address of Redis is not usable: {0}; write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]")]
pub struct InvalidAddress(String);

/// Why there is no client for an address.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("cannot read {}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Library(#[from] RedisError),
}

impl RedisAddress {
    /// The nodes, or the Sentinels.
    pub(super) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A client of one node, as whoever the address names.
    pub(super) fn client(&self, host: &Host) -> Result<Client, Unusable> {
        self.client_at(host, &self.login, self.database)
    }

    /// Whose state is there: no two fleets have one prefix in one database.
    pub(super) fn fleet(&self) -> String {
        match self.database {
            0 => self.prefix.clone(),
            // Braces are in no prefix.
            database => format!("{} {{database {database}}}", self.prefix),
        }
    }

    /// A client of one Sentinel, which knows no databases.
    pub(super) fn sentinel_client(&self, host: &Host) -> Result<Client, Unusable> {
        self.client_at(host, &self.sentinel_login, 0)
    }

    fn client_at(&self, host: &Host, login: &str, database: u32) -> Result<Client, Unusable> {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let info = format!("{scheme}://{login}{host}/{database}").into_connection_info()?;
        if !self.tls || (self.ca.is_none() && self.certificate.is_none()) {
            return Ok(Client::open(info)?);
        }
        let read =
            |path: &PathBuf| fs::read(path).map_err(|source| Unusable::File { path: path.clone(), source });
        let client_tls = match &self.certificate {
            Some((certificate, key)) => {
                Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
            }
            None => None,
        };
        let root_cert = self.ca.as_ref().map(read).transpose()?;
        Ok(Client::build_with_tls(info, TlsCertificates { client_tls, root_cert })?)
    }
}

impl Host {
    /// The node at an address as Redis writes it, such as in `MOVED 866 10.0.0.7:6379`.
    pub(super) fn of(name: &str, port: u16) -> Self {
        Self { name: name.trim_matches(['[', ']']).to_owned(), port }
    }

    fn parse(text: &str, default: u16) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(format!("{text:?} is no HOST or HOST:PORT"));
        // A host of an address is one that the library of addresses understands.
        let url = Url::parse(&format!("redis://{text}")).map_err(|_| invalid())?;
        let name = url.host_str().filter(|name| !name.is_empty()).ok_or_else(invalid)?;
        Ok(Self::of(name, url.port().unwrap_or(default)))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
    }
}

impl FromStr for RedisAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let wrong = |what: &str| InvalidAddress(what.to_owned());
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
        let (tls, by_sentinel) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            _ => return Err(wrong("its scheme is not redis, rediss, redis+sentinel or rediss+sentinel")),
        };
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) =
            authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
        let port = if by_sentinel { SENTINEL_PORT } else { PORT };
        let hosts = hosts.split(',').map(|host| Host::parse(host, port)).collect::<Result<_, _>>()?;
        let mut words = path.split('/').filter(|word| !word.is_empty());
        let watched = if by_sentinel {
            Some(words.next().ok_or_else(|| wrong("it does not name the primary that the Sentinels watch"))?)
        } else {
            None
        };
        let database = words.next().map_or(Ok(0), str::parse);
        let database = database.map_err(|_| wrong("its database is no number"))?;
        if words.next().is_some() {
            return Err(wrong("its path is too long"));
        }
        let mut address = Self {
            tls,
            login: if login.is_empty() { String::new() } else { format!("{login}@") },
            sentinel_login: String::new(),
            hosts,
            watched: watched.map(str::to_owned),
            database,
            prefix: FLEET.to_owned(),
            copies: 1,
            ca: None,
            certificate: None,
        };
        address.set_options(options)?;
        Ok(address)
    }
}

impl RedisAddress {
    fn set_options(&mut self, options: &str) -> Result<(), InvalidAddress> {
        let (mut certificate, mut key) = (None, None);
        let (mut sentinel_user, mut sentinel_password) = (None, None);
        for (name, value) in url::form_urlencoded::parse(options.as_bytes()) {
            let path = || Some(PathBuf::from(&*value));
            match &*name {
                "prefix" if !value.is_empty() && !value.contains(['{', '}']) => {
                    self.prefix = value.into_owned();
                }
                "copies" => {
                    let copies = value.parse().ok().filter(|copies| (1..=COPIES_MAX).contains(copies));
                    let range = || InvalidAddress(format!("copies is not a number from 1 to {COPIES_MAX}"));
                    self.copies = copies.ok_or_else(range)?;
                }
                "ca" if self.tls => self.ca = path(),
                "cert" if self.tls => certificate = path(),
                "key" if self.tls => key = path(),
                "ca" | "cert" | "key" => {
                    return Err(InvalidAddress(format!("{name} is for rediss only")));
                }
                "sentinel_user" if self.watched.is_some() => sentinel_user = Some(value.into_owned()),
                "sentinel_password" if self.watched.is_some() => sentinel_password = Some(value.into_owned()),
                "sentinel_user" | "sentinel_password" => {
                    let only = "redis+sentinel and rediss+sentinel only";
                    return Err(InvalidAddress(format!("{name} is for {only}")));
                }
                _ => return Err(InvalidAddress(format!("its option {name:?} is not known, or not usable"))),
            }
        }
        self.sentinel_login = match (sentinel_user, sentinel_password) {
            (None, None) => String::new(),
            (user, Some(password)) => encoded(&user.unwrap_or_default(), &password),
            (Some(_), None) => {
                return Err(InvalidAddress("sentinel_user needs sentinel_password".to_owned()));
            }
        };
        self.certificate = match (certificate, key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) | (None, Some(_)) => {
                return Err(InvalidAddress("cert and key go together".to_owned()));
            }
        };
        Ok(())
    }
}

/// `USER:PASSWORD@`, as in an address.
fn encoded(user: &str, password: &str) -> String {
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    format!("{}:{}@", encode(user), encode(password))
}

/// The address without who says so and by which password.
impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(if self.watched.is_some() { "+sentinel://" } else { "://" })?;
        for (number, host) in self.hosts.iter().enumerate() {
            write!(f, "{}{host}", if number > 0 { "," } else { "" })?;
        }
        if let Some(watched) = &self.watched {
            write!(f, "/{watched}")?;
        }
        if self.database != 0 { write!(f, "/{}", self.database) } else { Ok(()) }
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RedisAddress, InvalidAddress> {
        text.parse()
    }

    #[test]
    fn an_address_is_shown_as_it_was_written_but_for_the_login() {
        for (written, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("rediss://ann:se%40cret@10.0.0.7:7000/3?copies=2&prefix=shop", "rediss://10.0.0.7:7000/3"),
            ("redis://:secret@[::1]:7000", "redis://[::1]:7000"),
            ("redis+sentinel://u:p@a,b:1/main/2", "redis+sentinel://a:26379,b:1/main/2"),
            ("redis://a:1,b:2", "redis://a:1,b:2"),
        ] {
            let address = read(written).unwrap();
            assert_eq!((address.to_string(), format!("{address:?}")), (shown.to_owned(), shown.to_owned()));
        }
        let fleets = ["a?prefix=shop", "a/3?prefix=shop", "a/4?prefix=shop", "a/3"]
            .map(|address| read(&format!("redis://{address}")).unwrap().fleet());
        assert_eq!(fleets, ["shop", "shop {database 3}", "shop {database 4}", "baton {database 3}"]);
        let address = read("redis://a?copies=2&prefix=shop").unwrap();
        assert_eq!((address.copies, &*address.prefix), (2, "shop"));
    }

    #[test]
    fn p43_what_is_wrong_with_an_address_is_told_without_its_password() {
        for (written, says) in [
            ("localhost:6379", "no scheme"),
            ("http://u:hunter2@a", "scheme is not"),
            ("redis://u:hunter2@", "is no HOST"),
            ("redis://u:hunter2@a:x", "is no HOST"),
            ("redis+sentinel://u:hunter2@a", "does not name the primary"),
            ("redis://u:hunter2@a/x", "database is no number"),
            ("redis://u:hunter2@a/1/2", "path is too long"),
            ("redis://u:hunter2@a?copies=0", "copies is not"),
            ("redis://u:hunter2@a?ca=/x", "ca is for rediss only"),
            ("rediss://u:hunter2@a?cert=/x", "go together"),
            ("redis://u:hunter2@a?colour=red", "\"colour\" is not known"),
            ("redis://a?sentinel_password=hunter2", "sentinel_password is for redis+sentinel"),
            ("redis+sentinel://u:hunter2@a/main?sentinel_user=u", "needs sentinel_password"),
            ("redis://u:hunter2@a?prefix=%7B", "\"prefix\" is not known, or not usable"),
        ] {
            let error = read(written).unwrap_err().to_string();
            assert!(error.contains(says) && !error.contains("hunter2"), "{written}: {error}");
        }
    }

    #[test]
    fn p43_a_client_does_not_fail_with_the_password() {
        let address = read("rediss://u:hunter2@a?ca=/nowhere/ca.pem").unwrap();
        let error = address.client(&address.hosts()[0]).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nowhere/ca.pem");
    }
}
