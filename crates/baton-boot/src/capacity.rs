//! How many connections are forwarded at a time: as many as there are descriptors for. Others wait in the kernel's
//! accept queue, where a client costs none.

use std::sync::{Arc, OnceLock};

use baton_sys::descriptors;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Descriptors kept for everything else: listening sockets, pipes for the output of programs and their copies, probes,
/// pipes that are spare. Of few, half.
const OWN: u64 = 256;
/// What a connection takes: its client's side and its server's.
const EACH: u64 = 2;
/// What a pipe takes.
const PIPE: u64 = 2;

/// What all proxies and relays of this process, and what is rescued, may take up together.
#[derive(Debug)]
pub struct Capacity {
    connections: Arc<Semaphore>,
    pipes: Arc<Semaphore>,
}

impl Capacity {
    /// That of this process, by its limit of descriptors when it was first asked for.
    pub fn of_process() -> &'static Self {
        static CAPACITY: OnceLock<Capacity> = OnceLock::new();
        CAPACITY.get_or_init(|| {
            let (connections, pipes) = shares(descriptors::most());
            Self {
                connections: Arc::new(Semaphore::new(connections)),
                pipes: Arc::new(Semaphore::new(pipes)),
            }
        })
    }

    /// Waits until one more connection may be accepted.
    pub async fn connection(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().acquire_owned().await.ok()
    }

    /// Whether one more connection may be accepted, now.
    pub fn connection_now(&self) -> Option<OwnedSemaphorePermit> {
        self.connections.clone().try_acquire_owned().ok()
    }

    /// Whether there may be one more pipe, now.
    pub fn pipe(&self) -> Option<OwnedSemaphorePermit> {
        self.pipes.clone().try_acquire_owned().ok()
    }
}

/// How many connections and pipes there may be with so many descriptors. Most connections stand idle and have no pipe:
/// for each pipe there are two of them.
fn shares(descriptors: u64) -> (usize, usize) {
    let left = descriptors - OWN.min(descriptors / 2);
    let pipes = left / (2 * EACH + PIPE);
    let connections = (left - pipes * PIPE) / EACH;
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    // With none at all nobody would ever be served.
    (count(connections).max(1), count(pipes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_there_is_a_descriptor_for_whatever_may_be_accepted() {
        assert_eq!(shares(1024), (256, 128));
        assert_eq!(shares(4), (1, 0));
        for limit in (4..5000).chain([1 << 20, 1 << 30, u64::MAX]) {
            let (connections, pipes) = shares(limit);
            let taken = (connections as u128) * u128::from(EACH) + (pipes as u128) * u128::from(PIPE);
            assert!(taken + u128::from(OWN.min(limit / 2)) <= u128::from(limit), "{limit}");
        }
    }
}
