//! What a program is given that is in no release: references to values, which are resolved before a launch.
//!
//! A [`Secret`] shows itself to nobody: its `Debug` form says that there is one, it has no `Display`, and its memory is
//! zeroed when it goes.

mod hiding;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use zeroize::Zeroizing;

pub use self::hiding::hide;

/// The longest value in bytes, and the longest JSON object of such: what Linux takes as one variable, with its name, the `=`
/// between them and a NUL character at the end (`MAX_ARG_STRLEN` of `execve(2)`).
pub const SECRET_BYTES_MAX: usize = 128 << 10;
/// The most that all values of a release may be together, with what they are merged from.
pub const SECRETS_BYTES_MAX: usize = 1 << 20;
/// Most references of a release: more are a mistake, and each may be a request.
pub const REFERENCES_MAX: usize = 256;
/// The longest reference, and the longest version, in bytes: above what AWS allows for names, ARNs and paths.
const REFERENCE_BYTES_MAX: usize = 2048;

/// The references of a release.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Secrets {
    /// JSON objects whose members become variables; of two with one name the later one counts.
    pub from: Vec<Pinned>,
    /// Variables by name, sorted, each name once. They count more than what is merged.
    pub env: Vec<(String, Pinned)>,
    /// Where values stay between launches.
    pub keep: Keep,
}

/// Where values stay between launches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// In the bootloader's memory: after it was started anew, they are asked for again.
    #[default]
    Memory,
    /// Also on the member's disk, readable by the bootloader's user only, for as long as the release is there.
    Disk,
}

/// A reference, and which version of the value is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pinned {
    /// Where the value is.
    pub reference: Reference,
    /// Which version of it; whichever is there, when not set. Only what control resolves has versions.
    pub version: Option<String>,
}

impl From<Reference> for Pinned {
    fn from(reference: Reference) -> Self {
        Self { reference, version: None }
    }
}

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// In a file of the member.
    File(String),
    /// In a variable of the bootloader.
    Env(String),
    /// Where control asks for it.
    Aws(Aws),
}

/// A value that control asks for with its own credentials.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Aws {
    /// Who has it.
    pub place: Place,
    /// The member of a JSON object that is meant, if not the whole text.
    pub key: Option<String>,
}

/// Who has a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An object in S3, or what speaks like it.
    S3 {
        /// The bucket.
        bucket: String,
        /// The object's name in it.
        object: String,
    },
    /// AWS Secrets Manager; a name or an ARN.
    SecretsManager(String),
    /// The parameter store of AWS Systems Manager; a name or a path.
    Ssm(String),
}

/// Why a text is no reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidReference(&'static str);

impl Reference {
    /// Whether control resolves it.
    pub fn aws(&self) -> Option<&Aws> {
        match self {
            Self::Aws(aws) => Some(aws),
            Self::File(_) | Self::Env(_) => None,
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.len() > REFERENCE_BYTES_MAX {
            return Err(InvalidReference("it is longer than any name of a secret"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(InvalidReference("it has a space or a control character"));
        }
        let fault = InvalidReference("it is none that is known");
        let (kind, rest) = text.split_once(':').ok_or(fault)?;
        let keyed = || match rest.split_once('#') {
            Some((_, "")) => Err(InvalidReference("there is nothing behind its #")),
            Some((name, key)) => Ok((name, Some(key.to_owned()))),
            None => Ok((rest, None)),
        };
        let named = |name: &str| match name {
            "" => Err(InvalidReference("it names nothing")),
            name => Ok(name.to_owned()),
        };
        match kind {
            "file" if rest.starts_with('/') => Ok(Self::File(rest.to_owned())),
            "file" => Err(InvalidReference("the path of its file is not absolute")),
            "env" if rest.contains('=') => Err(InvalidReference("no variable has a = in its name")),
            "env" => Ok(Self::Env(named(rest)?)),
            "s3" => {
                let (name, key) = keyed()?;
                let found = name.strip_prefix("//").and_then(|name| name.split_once('/'));
                let (bucket, object) = found.ok_or(InvalidReference("it has no bucket and object"))?;
                let place = Place::S3 { bucket: named(bucket)?, object: named(object)? };
                Ok(Self::Aws(Aws { place, key }))
            }
            "aws-secretsmanager" => {
                let (name, key) = keyed()?;
                Ok(Self::Aws(Aws { place: Place::SecretsManager(named(name)?), key }))
            }
            "aws-ssm" => {
                let (name, key) = keyed()?;
                if has_selector(name) {
                    return Err(InvalidReference(
                        "a release has the version that is current when it is made",
                    ));
                }
                Ok(Self::Aws(Aws { place: Place::Ssm(named(name)?), key }))
            }
            _ => Err(fault),
        }
    }
}

/// Whether the name or ARN of a parameter goes on with a version or a label of it: `/prod/token:3`.
fn has_selector(name: &str) -> bool {
    let name = match name.strip_prefix("arn:") {
        Some(arn) => arn.split_once(":parameter/").map_or("", |(_, name)| name),
        None => name,
    };
    name.contains(':')
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{path}"),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Aws(aws) => aws.fmt(f),
        }
    }
}

impl fmt::Display for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::S3 { bucket, object } => write!(f, "s3://{bucket}/{object}")?,
            Place::SecretsManager(name) => write!(f, "aws-secretsmanager:{name}")?,
            Place::Ssm(name) => write!(f, "aws-ssm:{name}")?,
        }
        self.key.iter().try_for_each(|key| write!(f, "#{key}"))
    }
}

impl Secrets {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.from.is_empty() && self.env.is_empty()
    }

    /// All references, in the order in which they count: what is merged, then what is named.
    pub fn pinned(&self) -> impl Iterator<Item = &Pinned> {
        self.from.iter().chain(self.env.iter().map(|(_, pinned)| pinned))
    }

    /// The same, to give them versions.
    pub fn pinned_mut(&mut self) -> impl Iterator<Item = &mut Pinned> {
        self.from.iter_mut().chain(self.env.iter_mut().map(|(_, pinned)| pinned))
    }
}

/// Why a program cannot be given a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Nobody could read all of it.
    #[error("it has a NUL character, which no variable can have")]
    Nul,
    /// It is longer than [`SECRET_BYTES_MAX`].
    #[error("it is longer than a variable may be, {SECRET_BYTES_MAX} bytes with its name")]
    Long,
}

/// Whether a variable of this name can have this value.
///
/// # Errors
/// Says why not.
pub fn fits(name: &str, value: &Secret) -> Result<(), Unfit> {
    let value = value.reveal();
    if value.contains('\0') {
        return Err(Unfit::Nul);
    }
    // With what stands between and behind them.
    let bytes = name.len() + value.len() + 2;
    if bytes > SECRET_BYTES_MAX { Err(Unfit::Long) } else { Ok(()) }
}

/// Whether this may be the version of a value.
pub fn is_version(text: &str) -> bool {
    !text.is_empty() && text.len() <= REFERENCE_BYTES_MAX && !text.contains(|c: char| c.is_control())
}

/// A value that nobody is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Hides a text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for who is to have it: a program's environment, a session, a file of mode 0600.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The values of a release, ready for its launches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values {
    /// Of what is merged: what `env` of the settings says counts more.
    pub merged: Vec<(String, Secret)>,
    /// Of what has a name in the settings.
    pub named: Vec<(String, Secret)>,
}

/// Why the secrets of a release are not to be had; it says which, and never what they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Lacking(String);

impl Lacking {
    /// That of a reference; `name` is the variable, if it is not merged.
    pub fn of(name: Option<&str>, reference: &Reference, why: impl fmt::Display) -> Self {
        Self(match name {
            Some(name) => format!("the secret {name} ({reference}) cannot be had: {why}"),
            None => format!("what is merged from {reference} cannot be had: {why}"),
        })
    }

    /// What concerns all of them, or was said of one elsewhere.
    pub fn told(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bake::Bake;
    use crate::ids::ReleaseId;
    use crate::run::RunSettings;
    use crate::supervisor::{Launch, Order, Plan, Running, Ticket};
    use alloc::string::ToString;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn a_reference_is_read_as_it_is_written() {
        for good in [
            "file:/run/secrets/db",
            "env:DB_PASSWORD",
            "s3://acme/web.json",
            "s3://acme/a/b.json#key",
            "aws-secretsmanager:prod/db",
            "aws-secretsmanager:arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-AbCdEf#password",
            "aws-ssm:/prod/db/password",
            "aws-ssm:plain#key",
            "aws-ssm:arn:aws:ssm:eu-west-1:123456789012:parameter/prod/token",
        ] {
            let read: Reference = good.parse().unwrap();
            assert_eq!(read.to_string(), good);
            assert_eq!(read.aws().is_none(), good.starts_with("file:") || good.starts_with("env:"), "{good}");
        }
        for (bad, why) in [
            ("", "none that is known"),
            ("hunter2", "none that is known"),
            ("vault:x", "none that is known"),
            ("file:", "not absolute"),
            ("file:secrets/db", "not absolute"),
            ("env:", "names nothing"),
            ("env:A=b", "no variable"),
            ("s3://bucket", "bucket and object"),
            ("s3:///object", "names nothing"),
            ("s3://bucket/", "names nothing"),
            ("aws-ssm:", "names nothing"),
            ("aws-ssm:/prod/token:3", "has the version that is current"),
            ("aws-ssm:arn:aws:ssm:eu-west-1:1:parameter/a:label", "has the version that is current"),
            ("aws-secretsmanager:#key", "names nothing"),
            ("aws-secretsmanager:db#", "behind its #"),
            ("aws-ssm:a b", "space"),
            ("file:/a\n", "space"),
        ] {
            let fault = bad.parse::<Reference>().unwrap_err().to_string();
            assert!(fault.contains(why), "{bad:?}: {fault}");
        }
        assert!(format!("env:{}", "a".repeat(REFERENCE_BYTES_MAX)).parse::<Reference>().is_err());
    }

    #[test]
    fn a_variable_is_as_long_as_linux_takes_it() {
        let value = |bytes: usize| Secret::new("x".repeat(bytes));
        assert_eq!(fits("DB", &value(SECRET_BYTES_MAX - 4)), Ok(()));
        assert_eq!(fits("DB", &value(SECRET_BYTES_MAX - 3)), Err(Unfit::Long));
        assert_eq!(fits("DB", &Secret::new("a\0b".to_owned())), Err(Unfit::Nul));
        assert_eq!(fits("DB", &value(0)), Ok(()));
    }

    proptest! {
        /// P43: whatever holds a value, its `Debug` form and what it hides it in do not have it.
        #[test]
        fn p43_no_form_of_anything_has_a_value(value in "[0-9A-Z]{12,40}", around in "[a-z ]{0,20}") {
            let secret = Secret::new(value.clone());
            let values = Values {
                merged: vec![("MERGED".to_owned(), secret.clone())],
                named: vec![("NAMED".to_owned(), secret)],
            };
            let settings = RunSettings::for_command(vec!["server".to_owned()]);
            let running = Running::Release(ReleaseId::from_bytes([1; 32]));
            let plan = Plan::new(running, settings).with_secrets(values.clone());
            let order = Order::Try(Launch { plan: plan.into(), ticket: Ticket::Restore, bake: Bake::NONE });
            for text in [format!("{values:?}"), format!("{order:?}"), format!("{order:#?}")] {
                prop_assert!(!text.contains(&value) && text.contains("[secret]"), "{}", text);
            }
            let hidden = hide(&format!("{around}{value}{around}{value}"), [&values]);
            prop_assert!(!hidden.contains(&value) && hidden.starts_with(&around), "{}", hidden);
        }

        #[test]
        fn any_reference_is_read_back(text in "(file:/|env:|s3://b/|aws-secretsmanager:|aws-ssm:)[^\\s\\p{C}=]{1,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string(), text);
            }
        }
    }
}
