//! The ids of deploys: what makes a proposal the same proposal.

use baton_core::ids::{DeployId, ServiceName};

/// Why no id could be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw a random deploy id: the system has no random numbers")]
pub(crate) struct NoRandomness(#[source] getrandom::Error);

/// A new id.
pub(crate) fn random_id() -> Result<DeployId, NoRandomness> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(DeployId::from_bytes(bytes))
}

/// The id of the deploy that an idempotency key stands for.
pub(crate) fn id_of_key(service: &ServiceName, key: &str) -> DeployId {
    hash(&["idempotency-key", service.as_str(), key])
}

fn hash(parts: &[&str]) -> DeployId {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        // The length keeps ("a", "bc") apart from ("ab", "c").
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part.as_bytes());
    }
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    DeployId::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p32_a_key_stands_for_one_deploy_of_one_service() {
        let service = |name: &str| name.parse().unwrap();
        let id = id_of_key(&service("web"), "a");
        assert_eq!(id, id_of_key(&service("web"), "a"));
        for (name, key) in [("web", "b"), ("api", "a"), ("we", "ba")] {
            assert_ne!(id, id_of_key(&service(name), key), "{name} {key}");
        }
        assert_ne!(random_id().unwrap(), random_id().unwrap());
    }
}
