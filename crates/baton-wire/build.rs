//! Compiles the protobuf files without a `protoc` on the machine.

use std::error::Error;

const FILES: [&str; 2] = ["proto/baton/stored/v1/records.proto", "proto/baton/v1/session.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(FILES, ["proto"])?;
    // Who connects is not the business of this crate, so no transport is generated.
    // And what is secret shows itself to nobody: see `session`.
    let configured =
        tonic_prost_build::configure().build_transport(false).skip_debug([".baton.v1.SecretValue"]);
    configured.compile_fds(files)?;
    Ok(())
}
