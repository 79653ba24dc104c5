//! What other crates see of the pure core.

#[cfg(test)]
mod rollout;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod simulate;
