//! Places members on machines.
