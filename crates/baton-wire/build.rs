//! Compiles the protobuf files without a `protoc` on the machine.

use std::error::Error;

const FILES: [&str; 2] = ["proto/baton/stored/v1/records.proto", "proto/baton/v1/session.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    let mut config = prost_build::Config::new();
    // What is secret shows itself to nobody: see `session`.
    config.skip_debug([".baton.v1.SecretValue"]);
    // Most messages are heartbeats, which are moved a few times: that should be a few bytes.
    config.boxed(".baton.v1.FromMember.message.report").boxed(".baton.v1.FromMember.message.hello");
    config.compile_fds(files)?;
    Ok(())
}
