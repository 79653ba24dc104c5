//! How releases come to this member, as its environment says.

use std::path::PathBuf;

use baton_core::units::Bytes;

use super::ConfigError;

/// The least that a member gives others in a second: with less, several answers at once take longer than others wait.
const PEERS_LIMIT_MIN: Bytes = Bytes(2 << 20);
/// The least that a member may fetch in a second: with less, 16 answers at once are each so slow that servers and peers count as
/// failed.
const FETCH_LIMIT_MIN: Bytes = Bytes(1 << 20);
/// The least that a cache holds: a few packs.
const CACHE_LIMIT_MIN: Bytes = Bytes(32 << 20);
/// What a cache holds where nothing else is said: several releases of some hundred megabytes, compressed.
const CACHE_LIMIT_DEFAULT: Bytes = Bytes(1 << 30);

/// From where releases come, and how fast.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SupplySettings {
    /// How much this member fetches in a second at the most, where that was said.
    pub limit: Option<Bytes>,
    /// Servers with a copy of the store's packs, nearest first: `http://HOST/PREFIX`.
    pub mirrors: Vec<String>,
    /// A directory that the members of a host share.
    pub cache: Option<CacheSettings>,
    /// Where other members ask it, if they may.
    pub peers: Option<PeerSettings>,
}

/// A directory that the members of a host share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// The directory.
    pub path: PathBuf,
    /// How much it holds.
    pub limit: Bytes,
}

/// How this member gives others what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSettings {
    /// Where they ask: `ADDRESS:PORT`.
    pub address: String,
    /// How much it gives in a second at the most, where that was said.
    pub limit: Option<Bytes>,
}

impl SupplySettings {
    /// What these variables say.
    pub(super) fn parse(variable: &impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let limit = rate(variable("BATON_FETCH_LIMIT"), FETCH_LIMIT_MIN, ConfigError::FetchLimit)?;
        let mirrors = variable("BATON_MIRRORS").map_or(Ok(Vec::new()), |text| mirrors(&text))?;
        Ok(Self { limit, mirrors, cache: cache(variable)?, peers: peers(variable)? })
    }
}

fn peers(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<PeerSettings>, ConfigError> {
    let Some(address) = variable("BATON_PEERS").filter(|address| address != "off") else { return Ok(None) };
    let parts = address.rsplit_once(':');
    if !parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(ConfigError::Peers(address));
    }
    let limit = rate(variable("BATON_PEERS_LIMIT"), PEERS_LIMIT_MIN, ConfigError::PeersLimit)?;
    Ok(Some(PeerSettings { address, limit }))
}

fn cache(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<CacheSettings>, ConfigError> {
    let limit = rate(variable("BATON_CACHE_LIMIT"), CACHE_LIMIT_MIN, ConfigError::CacheLimit)?;
    let settings = |path| CacheSettings { path, limit: limit.unwrap_or(CACHE_LIMIT_DEFAULT) };
    Ok(variable("BATON_CACHE_DIR").map(PathBuf::from).map(settings))
}

/// A size of at least so much, if there is one.
fn rate(
    text: Option<String>,
    least: Bytes,
    error: impl FnOnce(String) -> ConfigError,
) -> Result<Option<Bytes>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    match text.parse() {
        Ok(size) if size >= least => Ok(Some(size)),
        Ok(_) | Err(_) => Err(error(text)),
    }
}

fn mirrors(text: &str) -> Result<Vec<String>, ConfigError> {
    let mirror = |part: &str| {
        let base = part.trim().trim_end_matches('/');
        let rest = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://"));
        let is_base = |rest: &str| {
            let plain = |byte: u8| byte.is_ascii_graphic() && !b"?#@".contains(&byte);
            !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(plain)
        };
        match rest.is_some_and(is_base) {
            true => Ok(base.to_owned()),
            false => Err(ConfigError::Mirror(part.trim().to_owned())),
        }
    };
    text.split(',').map(mirror).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<SupplySettings, ConfigError> {
        SupplySettings::parse(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn peers_are_named_by_an_address_or_off() {
        let peers = |variables| parse(variables).unwrap().peers;
        assert_eq!((peers(&[]), peers(&[("BATON_PEERS", "off")])), (None, None));
        let limit = Some(Bytes(8 << 20));
        let address = "[fd00::7]:7401".to_owned();
        let set = [("BATON_PEERS", "[fd00::7]:7401"), ("BATON_PEERS_LIMIT", "8MiB")];
        assert_eq!(peers(&set), Some(PeerSettings { address, limit }));
        for bad in ["on", ":7401", "10.0.0.7", "10.0.0.7:http"] {
            assert!(matches!(parse(&[("BATON_PEERS", bad)]), Err(ConfigError::Peers(_))), "{bad}");
        }
        for bad in ["8", "2047KiB", "fast"] {
            let set = [("BATON_PEERS", "10.0.0.7:1"), ("BATON_PEERS_LIMIT", bad)];
            assert!(matches!(parse(&set), Err(ConfigError::PeersLimit(_))), "{bad}");
        }
    }

    #[test]
    fn mirrors_are_addresses_of_web_servers() {
        let mirrors = |text| parse(&[("BATON_MIRRORS", text)]).map(|supply| supply.mirrors);
        let two = ["http://cache-1:8080", "https://m.example/releases"].map(str::to_owned);
        assert_eq!(mirrors("http://cache-1:8080, https://m.example/releases/").unwrap(), two);
        for bad in
            ["", "cache-1:8080", "ftp://x", "http://", "http:///x", "http://a b", "http://a?x", "http://u@a"]
        {
            assert!(matches!(mirrors(bad), Err(ConfigError::Mirror(_))), "{bad}");
        }
    }

    #[test]
    fn a_cache_and_a_limit_have_sizes() {
        let set = [("BATON_FETCH_LIMIT", "1MiB"), ("BATON_CACHE_DIR", "/var/cache/baton")];
        let supply = parse(&set).unwrap();
        assert_eq!(supply.limit, Some(Bytes(1 << 20)));
        let path = "/var/cache/baton".into();
        assert_eq!(supply.cache, Some(CacheSettings { path, limit: CACHE_LIMIT_DEFAULT }));
        for bad in ["1", "1000KiB", "fast"] {
            assert!(matches!(parse(&[("BATON_FETCH_LIMIT", bad)]), Err(ConfigError::FetchLimit(_))), "{bad}");
            assert!(matches!(parse(&[("BATON_CACHE_LIMIT", bad)]), Err(ConfigError::CacheLimit(_))), "{bad}");
        }
    }
}
