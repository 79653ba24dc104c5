//! Linux: processes, signals, reuseport sockets and their selector.
