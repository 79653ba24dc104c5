//! A program that is hard on whatever started it: see [`baton_e2e::nasty`].

fn main() -> anyhow::Result<std::process::ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    baton_e2e::nasty::run(&arguments)
}
