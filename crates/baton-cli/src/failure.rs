//! Why a command did not do what was asked, and what that means for whoever asked.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use baton_control::{BackupError, ServerError};
use baton_core::deploy::InvalidPolicy;
use baton_core::release::TextError;
use baton_core::settings::Mistakes;
use baton_release::control::ControlError;
use baton_release::manifest::ManifestError;
use baton_release::push::PushError;
use baton_release::store;

use crate::build::BuildError;
use crate::client::ClientError;
use crate::demo::DemoError;
use crate::doctor::DoctorError;
use crate::end::End;
use crate::escape;
use crate::exit::Exit;
use crate::keys::KeyFault;
use crate::local::LocalError;

/// What the API says to a deploy that is kept until a second person lets it begin.
const KEPT: &str = "needs-approval";

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Control refuses, or is not there.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The policy that was typed makes no sense.
    #[error("this cannot be rolled out")]
    Policy(#[from] InvalidPolicy),
    /// `baton.toml` has mistakes.
    #[error("{0}")]
    Settings(Mistakes),
    /// `baton.toml` cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file with the token cannot be read.
    #[error("cannot read the token in {}: name its file with --token-file, or in BATON_TOKEN_FILE", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is to be imported cannot be.
    #[error("cannot import {}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BackupError,
    },
    /// A private key cannot be used.
    #[error("the private key of {} cannot be used", path.display())]
    PrivateKey {
        /// The file, or the variable.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyFault,
    },
    /// The list of trusted keys has a mistake.
    #[error("{} has a mistake", path.display())]
    TrustedKeys {
        /// The file.
        path: PathBuf,
        /// The mistake.
        #[source]
        source: TextError,
    },
    /// The deploy was not signed, since it is not what whoever signs wants.
    #[error("not signed: {0}")]
    NotSigned(String),
    /// The release is there, and its signature is not.
    #[error("the release was not signed")]
    Sign(#[source] store::StoreError),
    /// The manifest of the release that is to be signed is not there, or not as it should be.
    #[error("the release was not signed")]
    Unread(#[from] ManifestError),
    /// The release has not reached the server.
    #[error("no release was pushed")]
    Push(#[from] PushError),
    /// A build step has not made what it should.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The rollout ended otherwise than wanted. People have been told.
    #[error("{0}")]
    Ended(End),
    /// The demo did not end as it should.
    #[error("the demo failed")]
    Demo(#[from] DemoError),
    /// Something does not run on this machine.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The program could not be tried out.
    #[error("the program was not tried out")]
    Doctor(#[from] DoctorError),
    /// The program was tried out, and something loses requests or does not work. People have been told.
    #[error("the program is not ready: {} bad", .0)]
    Unfit(usize),
    /// Something that the server keeps is damaged. People have been told.
    #[error("{} things that the server keeps are damaged", .0)]
    Damaged(usize),
    /// A guard is switched off. People have been told.
    #[error("{} guards are switched off", .0)]
    Unguarded(usize),
    /// Rollouts wait for a person. People have been told.
    #[error("a person has to decide what follows, for {0}")]
    Stuck(String),
    /// The audit log is not as it was written.
    #[error("the audit log is not as it was written: {0}")]
    Tampered(String),
    /// Releases could not be given back to the server. People have been told.
    #[error("{} releases are not whole on the server", .0)]
    NotRepaired(usize),
    /// The server's store fails.
    #[error(transparent)]
    Store(store::StoreError),
    /// The program does not run by itself, so that nothing can be found out about it.
    #[error("the program does not go on running: {0}")]
    NotRunning(String),
    /// What was to be written does not work. People have been told.
    #[error("nothing was written, since the program does not start with it")]
    NotWritten,
    /// A simulated rollout broke what must hold.
    #[error("{0}")]
    Simulated(String),
    /// Nobody tells when files of a directory change.
    #[error("cannot watch {} for changes; go on without --watch", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: notify::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server does not start, or has ended.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The machine does not do what every command needs.
    #[error("cannot {what}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("cannot write the result")]
    Print(#[from] io::Error),
}

impl Failure {
    /// How the program ends because of it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(ClientError::Unreachable { .. }) => Exit::Unreachable,
            // Nothing was done, and nobody needs to ask again.
            Self::Client(ClientError::Refused { refused, .. }) if refused.code == KEPT => Exit::Kept,
            Self::Client(ClientError::Refused { status, .. }) => Exit::of_status(*status),
            Self::Client(ClientError::NotUnderstood { .. }) => Exit::Failed,
            Self::Client(
                ClientError::Address { .. } | ClientError::Port { .. } | ClientError::Credentials,
            )
            | Self::Client(ClientError::Control(
                ControlError::Address(_) | ControlError::InPlain(_) | ControlError::Authority { .. },
            ))
            | Self::Server(
                ServerError::NotLoopback { .. }
                | ServerError::DataDir { .. }
                | ServerError::NoSealKey
                | ServerError::NoStore
                | ServerError::ClosedFleet { .. }
                | ServerError::SealKey { .. }
                | ServerError::Prometheus(_)
                | ServerError::Allowed(_)
                | ServerError::Bucket(_)
                | ServerError::Tls(_),
            )
            | Self::Usage(_)
            | Self::Token { .. }
            | Self::Policy(_)
            | Self::PrivateKey { .. }
            | Self::TrustedKeys { .. }
            | Self::Settings(_) => Exit::Usage,
            Self::Push(PushError::Store(error)) | Self::Sign(error) | Self::Store(error) => {
                exit_of_store(error.kind)
            }
            Self::Client(ClientError::Control(ControlError::Unreachable { .. })) => Exit::Unreachable,
            Self::Client(ClientError::Control(ControlError::Stranger { .. })) | Self::NotSigned(_) => {
                Exit::NotAllowed
            }
            Self::Ended(end) => end.exit(),
            Self::Unguarded(_) => Exit::Unguarded,
            Self::Stuck(_) => Exit::Halted,
            // Whoever reads the output has seen enough.
            Self::Print(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Demo(DemoError::Interrupted) | Self::Doctor(DoctorError::Interrupted) => Exit::Interrupted,
            Self::Demo(_)
            | Self::Local(_)
            | Self::Doctor(_)
            | Self::Build(_)
            | Self::Unfit(_)
            | Self::Damaged(_)
            | Self::Tampered(_)
            | Self::NotRepaired(_)
            | Self::NotRunning(_)
            | Self::NotWritten
            | Self::Write { .. }
            | Self::Watch { .. }
            | Self::Simulated(_)
            | Self::Backup { .. }
            | Self::Read { .. }
            | Self::Unread(_)
            | Self::Push(_)
            | Self::Server(_)
            | Self::System { .. }
            | Self::Print(_) => Exit::Failed,
        }
    }

    /// A stable word for programs: what the API says, or one of the table in `docs/reference/cli.md`.
    pub fn code(&self) -> &str {
        match self {
            Self::Client(ClientError::Refused { refused, .. }) => &refused.code,
            Self::Ended(end) => end.code(),
            Self::Damaged(_) | Self::NotRepaired(_) => "damaged",
            Self::Stuck(_) => "needs-person",
            Self::Tampered(_) => "tampered",
            Self::Unfit(_) | Self::NotRunning(_) | Self::NotWritten => "unfit",
            Self::Push(PushError::Store(error)) if error.kind == store::Kind::Storage => "storage",
            Self::Push(_) if self.exit() == Exit::Failed => "push-failed",
            Self::Build(_) => "build-failed",
            other => match other.exit() {
                Exit::Usage => "usage",
                Exit::Unreachable => "unreachable",
                Exit::Conflict => "conflict",
                Exit::NotAllowed => "not-allowed",
                Exit::Unguarded => "unguarded",
                Exit::Kept => KEPT,
                Exit::Done | Exit::Failed | Exit::Halted | Exit::TimedOut | Exit::Interrupted => "failed",
            },
        }
    }

    /// What is wrong and why, safe to print: `a: b: c`, and mistakes in settings one a line.
    pub fn message(&self) -> String {
        if let Self::Settings(mistakes) = self {
            let mistakes: Vec<String> =
                mistakes.0.iter().map(|one| escape::escape(&one.to_string())).collect();
            return mistakes.join("\n");
        }
        chain(self)
    }
}

/// An error with all its causes, safe to print: `a: b: c`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    escape::escape(&text)
}

const fn exit_of_store(kind: store::Kind) -> Exit {
    match kind {
        store::Kind::Unavailable | store::Kind::Storage => Exit::Unreachable,
        store::Kind::Denied => Exit::NotAllowed,
        store::Kind::Conflict => Exit::Conflict,
        store::Kind::Missing | store::Kind::Corrupt => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use baton_wire::api::Refused;

    use super::*;

    fn refused(status: u16, code: &str) -> Failure {
        let refused = Refused { code: code.to_owned(), message: "no\x1b[2J".to_owned() };
        Failure::Client(ClientError::Refused { status, refused })
    }

    #[test]
    fn every_failure_has_its_exit_code_and_word() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        for (failure, exit, code) in [
            (refused(409, "conflict"), Exit::Conflict, "conflict"),
            (refused(403, "not-allowed"), Exit::NotAllowed, "not-allowed"),
            (refused(403, "needs-approval"), Exit::Kept, "needs-approval"),
            (refused(404, "not-found"), Exit::Failed, "not-found"),
            (Failure::Usage(String::new()), Exit::Usage, "usage"),
            (Failure::Policy(InvalidPolicy::AllAtOnce(baton_core::units::Share::ALL)), Exit::Usage, "usage"),
            (Failure::Ended(End::Halted), Exit::Halted, "halted"),
            (Failure::Ended(End::RolledBack), Exit::Halted, "rolled-back"),
            (Failure::Ended(End::TimedOut), Exit::TimedOut, "timed-out"),
            (Failure::Ended(End::Superseded), Exit::Conflict, "superseded"),
            (Failure::Ended(End::Incomplete), Exit::Failed, "incomplete"),
            (Failure::Stuck("web".to_owned()), Exit::Halted, "needs-person"),
            (Failure::Print(pipe()), Exit::Done, "failed"),
            (Failure::System { what: "wait", source: pipe() }, Exit::Failed, "failed"),
        ] {
            assert_eq!((failure.exit(), failure.code()), (exit, code), "{failure:?}");
        }
        for (kind, exit) in [
            (store::Kind::Unavailable, Exit::Unreachable),
            (store::Kind::Denied, Exit::NotAllowed),
            (store::Kind::Missing, Exit::Failed),
        ] {
            let failure = Failure::Push(PushError::Store(store::StoreError::new(kind, "publish")));
            assert_eq!(failure.exit(), exit);
            assert!(failure.message().starts_with("no release was pushed: "), "{}", failure.message());
        }
        let full = store::StoreError::new(store::Kind::Storage, "publish");
        let full = Failure::Push(PushError::Store(full));
        assert_eq!((full.exit(), full.code()), (Exit::Unreachable, "storage"));
    }

    #[test]
    fn p44_what_a_server_says_cannot_drive_the_terminal() {
        assert_eq!(refused(500, "failed").message(), "no\\x1b[2J");
    }

    #[test]
    fn causes_are_told_once() {
        let source = io::Error::other("disk on fire");
        let failure = Failure::Read { path: "baton.toml".into(), source };
        assert_eq!(failure.message(), "cannot read baton.toml: disk on fire");
    }
}
