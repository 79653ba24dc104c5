//! What other crates see of the pure core.

#[cfg(test)]
mod settings;
