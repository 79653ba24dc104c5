//! The process wrapper in every member.

fn main() {}
