//! Whole stories over real processes under real load.

pub mod bench;
pub mod chaos;
pub mod conformance;
pub mod docker;
pub mod endurance;
pub mod load;
pub mod member;
pub mod nasty;
pub mod ports;
pub mod process;
pub mod sandbox;
