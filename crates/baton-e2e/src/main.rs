//! Whole stories over real processes under real load.

fn main() {}
