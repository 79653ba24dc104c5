//! Which members of a fleet shall run a release.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use crate::ids::{NAME_BYTES_MAX, valid_name};
use crate::units::Share;

/// Most labels of a member: more than that is a list of something else.
pub const LABELS_MAX: usize = 32;

/// Which members shall run a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// How many of them.
    pub amount: Amount,
    /// Only members with this label; none: all.
    pub label: Option<Label>,
}

/// How many members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// A share of them, rounded up.
    Share(Share),
    /// So many, or all where there are fewer.
    Members(u32),
}

/// Something that members are told of themselves, to be chosen by: `canary`, `zone=eu-1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// Why a text is no label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "label {0:?} is not valid: write a word or WORD=WORD, each of 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, '.', '_' \
     and '-', starting with a letter or digit"
)]
pub struct InvalidLabel(String);

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount of members: write a share such as 10%, or a number such as 3")]
pub struct InvalidAmount(String);

impl Target {
    /// Every member.
    pub const ALL: Self = Self { amount: Amount::Share(Share::ALL), label: None };

    /// Whether that is every member.
    pub fn is_all(&self) -> bool {
        *self == Self::ALL
    }

    /// Whether a member with these labels is one of those who may be chosen.
    pub fn means(&self, labels: &[Label]) -> bool {
        self.label.as_ref().is_none_or(|label| labels.contains(label))
    }

    /// How many of `n` members that may be chosen shall run it.
    pub fn of(&self, n: u32) -> u32 {
        match self.amount {
            Amount::Share(share) => share.ceil_of(n),
            Amount::Members(members) => members.min(n),
        }
    }

    /// Whether nobody is meant.
    pub const fn is_nobody(&self) -> bool {
        matches!(self.amount, Amount::Share(Share::NONE) | Amount::Members(0))
    }
}

impl From<Share> for Target {
    fn from(share: Share) -> Self {
        Self { amount: Amount::Share(share), label: None }
    }
}

impl Label {
    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let (word, value) = text.split_once('=').map_or((text, None), |(word, value)| (word, Some(value)));
        let valid = valid_name(word) && value.is_none_or(valid_name);
        if valid { Ok(Self(text.to_string())) } else { Err(InvalidLabel(text.to_string())) }
    }
}

impl FromStr for Amount {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let invalid = || InvalidAmount(text.to_string());
        if text.ends_with('%') {
            return text.parse().map(Self::Share).map_err(|_| invalid());
        }
        // `parse` would let a sign through.
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits).map(Self::Members).ok_or_else(invalid)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => share.fmt(f),
            Self::Members(1) => f.write_str("1 member"),
            Self::Members(members) => write!(f, "{members} members"),
        }
    }
}

impl fmt::Display for Target {
    /// `10 %`, `3 members`, `100 % of zone=eu-1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.amount.fmt(f)?;
        match &self.label {
            None => Ok(()),
            Some(label) => write!(f, " of {label}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_share_or_a_number() {
        for (text, of_ten) in [("10%", 1), ("15%", 2), ("3", 3), ("30", 10), ("100%", 10), ("0", 0)] {
            let amount = text.parse().unwrap();
            assert_eq!(Target { amount, label: None }.of(10), of_ten, "{text}");
        }
        for text in ["", "-1", "+1", "1.5", "101%", "%", "all", "99999999999"] {
            assert_eq!(text.parse::<Amount>(), Err(InvalidAmount(text.into())));
        }
    }

    #[test]
    fn a_label_is_a_word_or_two() {
        for text in ["canary", "zone=eu-1", "a=b"] {
            assert_eq!(text.parse::<Label>().unwrap().as_str(), text);
        }
        for text in ["", "=", "a=", "=b", "a=b=c", "a b", "a,b", "-a"] {
            assert_eq!(text.parse::<Label>(), Err(InvalidLabel(text.into())));
        }
    }

    #[test]
    fn who_is_meant_has_the_label() {
        let labels = ["canary", "zone=eu-1"].map(|text| text.parse::<Label>().unwrap());
        let target = |label: &str| Target { label: label.parse().ok(), ..Target::ALL };
        assert!(Target::ALL.means(&[]) && Target::ALL.is_all());
        assert!(target("canary").means(&labels) && target("zone=eu-1").means(&labels));
        assert!(!target("zone=us-1").means(&labels) && !target("canary").means(&[]));
        assert!(!target("canary").is_all());
        assert_eq!(target("canary").to_string(), "100 % of canary");
    }
}
