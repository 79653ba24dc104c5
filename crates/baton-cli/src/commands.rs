//! What the commands mean: one file each.

mod abort;
pub mod audit;
mod build;
mod demo;
mod deploy;
mod deploys;
mod doctor;
mod events;
mod guards;
mod halt;
mod init;
mod key;
mod lock;
mod members;
mod pending;
pub mod push;
mod releases;
mod resume;
mod rollback;
mod server;
mod simulate;
mod status;
mod token;
mod wait;

use crate::args::{Cli, Command, Key, Token};
use crate::context::Context;
use crate::failure::Failure;
use crate::ui::Ui;

/// Does what was typed.
///
/// # Errors
/// Says why it was not done; what it says has not been printed yet.
pub fn run(cli: Cli, ui: Ui) -> Result<(), Failure> {
    let context = || Context::new(&cli.global, ui);
    match cli.command {
        Command::Demo(_) => demo::run(&ui),
        Command::Dev(args) => crate::dev::run(&args, ui),
        Command::Simulate(args) => simulate::run(&args, &ui),
        Command::Init(args) => init::run(&args, &ui),
        Command::Doctor(args) => doctor::run(&args, &ui),
        Command::Server(args) => server::run(args, &ui),
        Command::Build(args) => build::run(&args, &context()?),
        Command::Push(args) => push::run(args, &context()?),
        Command::Key(Key::Generate(args)) => key::generate(args, &ui),
        Command::Key(Key::List(args)) => key::list(&args, &ui),
        Command::Key(Key::Rotate(args)) => key::rotate(args, &ui),
        Command::Key(Key::Revoke(args)) => key::revoke(&args, &ui),
        Command::Key(Key::Sign(args)) => key::sign(&args, &context()?),
        Command::Token(Token::Create(args)) => token::create(args, &context()?),
        Command::Token(Token::Join(args)) => token::join(args, &context()?),
        Command::Token(Token::List(_)) => token::list(&context()?),
        Command::Token(Token::Revoke(args)) => token::revoke(args, &context()?),
        Command::Pending(args) => pending::run(args, &context()?),
        Command::Guards(_) => guards::run(&context()?),
        Command::Audit(args) => audit::run(args, &context()?),
        Command::Deploy(args) => deploy::run(args, &context()?),
        Command::Wait(args) => wait::run(args, &context()?),
        Command::Rollback(args) => rollback::run(args, &context()?),
        Command::Abort(args) => abort::run(args, &context()?),
        Command::Lock(args) => lock::lock(args, &context()?),
        Command::Unlock(args) => lock::unlock(args, &context()?),
        Command::Halt(args) => halt::run(args, &context()?),
        Command::Resume(args) => resume::run(args, &context()?),
        Command::Status(args) => status::run(args, &context()?),
        Command::Members(args) => members::run(args, &context()?),
        Command::Deploys(args) => deploys::run(args, &context()?),
        Command::Releases(args) => releases::run(&args, &context()?),
        Command::Events(args) => events::run(&args, &context()?),
    }
}
