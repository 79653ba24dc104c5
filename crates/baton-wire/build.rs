//! Compiles the protobuf files without a `protoc` on the machine.

use std::error::Error;

const FILES: [&str; 2] = ["proto/baton/stored/v1/records.proto", "proto/baton/v1/session.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    // What is secret shows itself to nobody: see `session`.
    prost_build::Config::new().skip_debug([".baton.v1.SecretValue"]).compile_fds(files)?;
    Ok(())
}
