//! A directory and its chunks: walk, cut, fetch, lay out, verify.
