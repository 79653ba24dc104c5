//! What is wrong with a text of the format, and in which line.

use alloc::string::String;
use core::fmt;

use super::CHUNK_BYTES_MAX;
use super::external::ExternalFault;
use super::lines::VERSION;
use super::path::PathFault;
use super::tree::TreeFault;

/// The texts of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// What a release consists of.
    Manifest,
    /// Which chunks make up a manifest.
    Outline,
    /// What lies in a pack.
    Index,
    /// A release that somebody vouches for.
    Approval,
    /// A deploy that somebody answers for.
    Warrant,
    /// Whose signatures a member believes.
    TrustedKeys,
    /// Which service may have which secret: a text of control.
    AllowedSecrets,
    /// Where frames may be read. It travels only, so it is not of the format but of the API.
    Grant,
}

impl Text {
    /// The first word of its first line.
    pub(crate) fn magic(self) -> &'static str {
        match self {
            Self::Manifest => "baton-manifest",
            Self::Outline => "baton-outline",
            Self::Index => "baton-pack",
            Self::Approval => "baton-approval",
            Self::Warrant => "baton-warrant",
            Self::TrustedKeys => "baton-trusted-keys",
            Self::AllowedSecrets => "baton-allowed-secrets",
            Self::Grant => "baton-grant",
        }
    }
}

impl Text {
    fn with_article(self) -> &'static str {
        match self {
            Self::Manifest => "a manifest",
            Self::Outline => "an outline",
            Self::Index => "a pack",
            Self::Approval => "an approval",
            Self::Warrant => "a warrant",
            Self::TrustedKeys => "a list of trusted keys",
            Self::AllowedSecrets => "a list of allowed secrets",
            Self::Grant => "a grant",
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Outline => "outline",
            Self::Index => "pack's index",
            Self::Approval => "approval",
            Self::Warrant => "warrant",
            Self::TrustedKeys => "list of trusted keys",
            Self::AllowedSecrets => "list of allowed secrets",
            Self::Grant => "read grant",
        })
    }
}

/// Why a text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {text} is refused at line {line}")]
pub struct TextError {
    /// What it should be.
    pub text: Text,
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong there.
    #[source]
    pub what: Fault,
}

/// What is wrong in a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// More bytes than anyone should have to read.
    #[error("it has more than {max} bytes")]
    TooLong {
        /// The most it may have.
        max: usize,
    },
    /// Something else.
    #[error("this is not {}: the first line is `{magic} {VERSION}`", .0.with_article(), magic = .0.magic())]
    NotThat(Text),
    /// From the future.
    #[error("this is version {0:?} of the format; this program reads {VERSION}: update it")]
    Version(String),
    /// The text ends where a line should follow, or in the middle of one.
    #[error("the text ends too early, or its last line is not finished")]
    Unfinished,
    /// Another line should be here.
    #[error("a line `{0} …` should be here")]
    Expected(&'static str),
    /// The line is too short, or has two spaces in a row.
    #[error("a word is missing, or there is a space too much")]
    WordMissing,
    /// The line is too long.
    #[error("{0:?} is too much")]
    Surplus(String),
    /// A word that has no meaning here.
    #[error("{0:?} is not known here")]
    UnknownWord(String),
    /// A value of the wrong kind, or in another than its one spelling.
    #[error("{text:?} is not {what} in its one right spelling")]
    NotA {
        /// What should be here.
        what: &'static str,
        /// What is here.
        text: String,
    },
    /// Something else than a reference to a secret.
    #[error("a reference that control resolves should be here, or how some begin, with a * at the end")]
    NoReference,
    /// A text that is not in quotes, or in another than its one spelling.
    #[error("a text in quotes should be here, in its one right spelling")]
    Quotes,
    /// Something that does not exist in releases.
    #[error("{0:?} does not exist in a release: only dir, file, exec and link do")]
    UnknownKind(String),
    /// A path that is not allowed.
    #[error("the path {path:?} is not allowed")]
    Path {
        /// The path.
        path: String,
        /// Why not.
        #[source]
        fault: PathFault,
    },
    /// A place outside that no link may be allowed to lead to.
    #[error("links may not be allowed to lead to {target:?}")]
    External {
        /// The place.
        target: String,
        /// Why not.
        #[source]
        fault: ExternalFault,
    },
    /// An entry that does not fit to the others.
    #[error("the entry does not fit into the release")]
    Tree(#[from] TreeFault),
    /// A file whose chunks do not make up its size.
    #[error("{path:?} has {bytes} bytes, but its chunks have {sum}")]
    Size {
        /// The file.
        path: String,
        /// The size that is said.
        bytes: u64,
        /// The size that is there.
        sum: u64,
    },
    /// A run setting that no program can be started with.
    #[error("{key} is not possible: {why}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// A chunk that is empty or too long.
    #[error("a chunk has {0} bytes; chunks have 1 to {CHUNK_BYTES_MAX}")]
    ChunkLength(u32),
    /// More of something than there may be.
    #[error("there are more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The most there may be.
        max: u64,
    },
    /// Something that may be there once.
    #[error("{0:?} is there already")]
    Twice(String),
    /// Signatures in another order than that of their keys.
    #[error("the keys are not in their order, or one is there twice")]
    KeyOrder,
    /// A frame without a chunk.
    #[error("the frame before it has no chunk")]
    EmptyFrame,
    /// A sum that is not that of its parts.
    #[error("it says {said} bytes, and there are {sum}")]
    Sum {
        /// What is said.
        said: u64,
        /// What is there.
        sum: u64,
    },
}
