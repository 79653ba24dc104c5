//! The server: fleet view, sessions, grants, API, metrics.
