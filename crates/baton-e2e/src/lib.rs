//! Whole stories over real processes under real load.

pub mod load;
