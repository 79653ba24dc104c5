//! Which service may have which secret: a text that operators write, and give to control.
//!
//! ```text
//! baton-allowed-secrets 1
//! # SERVICES, and the references that control resolves for them.
//! web,web.* aws-ssm:/prod/web/* aws-secretsmanager:prod/db#web
//! * s3://acme-shared/*
//! ```

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::ids::{ServiceName, valid_name};
use crate::release::lines::{Lines, Words};
use crate::release::{Fault, Text, TextError};
use crate::run::secrets::{Aws, Place, Reference};

/// Longest list in bytes: far more lines than anybody can keep track of.
pub const ALLOWED_SECRETS_BYTES_MAX: usize = 1 << 20;

/// What a reference begins with that control resolves.
const KINDS: [&str; 3] = ["s3://", "aws-secretsmanager:", "aws-ssm:"];

/// How names in the parameter store begin whose values lie elsewhere, such as `/aws/reference/secretsmanager/NAME`.
const ELSEWHERE: &str = "/aws/reference/";

/// Which service may have which secret. What no line allows is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedSecrets {
    lines: Vec<AllowedLine>,
}

/// Services that may have these secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedLine {
    services: Vec<Pattern>,
    references: Vec<Pattern>,
}

/// A text, or how one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exactly(String),
    Beginning(String),
}

/// Why a service may not have a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// No line allows it.
    #[error(
        "service {service} may not have {reference}: the list of allowed secrets lacks the line `{service} {reference}`"
    )]
    NoLine {
        /// The service.
        service: ServiceName,
        /// What it is to have.
        reference: String,
    },
    /// No line allows it, and none can say it without a `*` that would stand for more.
    #[error(
        "service {service} may not have {reference}: the list of allowed secrets has no line for it, and since there is a * in its \
         name, no line can say exactly this: rename it, or allow how its name begins"
    )]
    Star {
        /// The service.
        service: ServiceName,
        /// What it is to have.
        reference: String,
    },
    /// Who keeps the value may read its name in another way than it is compared here.
    #[error(
        "service {service} may not have {reference}: a part of its path is empty, `.` or `..`, or its bucket has other characters \
         than letters, digits, `.`, `_` and `-`"
    )]
    Path {
        /// The service.
        service: ServiceName,
        /// What it is to have.
        reference: String,
    },
}

impl AllowedSecrets {
    /// Reads a list.
    ///
    /// # Errors
    /// Says what is wrong, and in which line.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if text.len() > ALLOWED_SECRETS_BYTES_MAX {
            let what = Fault::TooLong { max: ALLOWED_SECRETS_BYTES_MAX };
            return Err(TextError { text: Text::AllowedSecrets, line: 1, what });
        }
        let mut lines = Lines::new(Text::AllowedSecrets, text)?;
        let mut allowed = Vec::new();
        lines.skip_remarks()?;
        while !lines.is_empty() {
            allowed.push(line(&mut lines.next()?)?);
            lines.skip_remarks()?;
        }
        Ok(Self { lines: allowed })
    }

    /// The lines, in their order.
    pub fn lines(&self) -> &[AllowedLine] {
        &self.lines
    }

    /// Whether a service may have what a reference names. What is the member's own is nothing that control gives.
    ///
    /// # Errors
    /// It may not, and why.
    pub fn check(&self, service: &ServiceName, reference: &Reference) -> Result<(), NotAllowed> {
        let Reference::Aws(aws) = reference else { return Ok(()) };
        let (service, text) = (service.clone(), aws.to_string());
        if !is_plain(aws) {
            return Err(NotAllowed::Path { service, reference: text });
        }
        match self.lines.iter().any(|line| line.allows(&service, aws, &text)) {
            true => Ok(()),
            false if text.contains('*') => Err(NotAllowed::Star { service, reference: text }),
            false => Err(NotAllowed::NoLine { service, reference: text }),
        }
    }
}

impl AllowedLine {
    /// `text` is the reference as it is written.
    fn allows(&self, service: &ServiceName, aws: &Aws, text: &str) -> bool {
        // Who may have all of a secret may have one member of it.
        let whole = aws.key.as_ref().and_then(|key| text.strip_suffix(key.as_str())?.strip_suffix('#'));
        let is_elsewhere = is_elsewhere(aws);
        self.services.iter().any(|pattern| pattern.fits(service.as_str()))
            && self
                .references
                .iter()
                .filter(|pattern| !is_elsewhere || pattern.says_elsewhere())
                .any(|pattern| pattern.fits(text) || whole.is_some_and(|whole| pattern.fits(whole)))
    }
}

impl Pattern {
    fn of(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(beginning) => Self::Beginning(beginning.to_string()),
            None => Self::Exactly(text.to_string()),
        }
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Exactly(exactly) => text == exactly,
            Self::Beginning(beginning) => text.starts_with(beginning.as_str()),
        }
    }

    /// Whether somebody who wrote this has thought of what lies elsewhere, or means everything.
    fn says_elsewhere(&self) -> bool {
        match self {
            Self::Exactly(_) => true,
            Self::Beginning(beginning) => beginning.is_empty() || beginning.contains(ELSEWHERE),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(exactly) => f.write_str(exactly),
            Self::Beginning(beginning) => write!(f, "{beginning}*"),
        }
    }
}

impl fmt::Display for AllowedLine {
    /// As the list has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<String> = self.services.iter().map(ToString::to_string).collect();
        f.write_str(&services.join(","))?;
        self.references.iter().try_for_each(|reference| write!(f, " {reference}"))
    }
}

fn line(words: &mut Words<'_>) -> Result<AllowedLine, TextError> {
    let mut services = Vec::new();
    for name in words.word()?.split(',') {
        let pattern = Pattern::of(name);
        let is_one = match &pattern {
            Pattern::Exactly(name) => valid_name(name),
            Pattern::Beginning(beginning) => beginning.is_empty() || valid_name(beginning),
        };
        let what = "the name of a service, or how some begin, with a * at the end";
        let wrong = || words.fault(Fault::NotA { what, text: name.to_string() });
        services.push(is_one.then_some(pattern).ok_or_else(wrong)?);
    }
    let mut references = alloc::vec![reference(words)?];
    while !words.is_empty() {
        references.push(reference(words)?);
    }
    Ok(AllowedLine { services, references })
}

fn reference(words: &mut Words<'_>) -> Result<Pattern, TextError> {
    let text = words.word()?;
    let pattern = Pattern::of(text);
    let is_one = match &pattern {
        Pattern::Exactly(exactly) => {
            exactly.parse().is_ok_and(|reference: Reference| reference.aws().is_some_and(is_plain))
        }
        Pattern::Beginning(beginning) => {
            let kind = KINDS.into_iter().find_map(|kind| beginning.strip_prefix(kind));
            beginning.is_empty() || kind.is_some_and(|name| !name.contains("..") && !name.contains("/./"))
        }
    };
    // A star elsewhere would be taken for one that means something.
    let stars = text.strip_suffix('*').unwrap_or(text).contains('*');
    // What is here may be a value, by mistake: it is not told.
    let wrong = || words.fault(Fault::NoReference);
    (is_one && !stars).then_some(pattern).ok_or_else(wrong)
}

/// Whether the name of a value is written in the one way in which everybody reads it. Who asks for an object makes an address of
/// its bucket, in which other characters would lead to another one.
fn is_plain(aws: &Aws) -> bool {
    let path = match &aws.place {
        Place::S3 { bucket, object } if is_bucket(bucket) => object.as_str(),
        Place::S3 { .. } => return false,
        // A path of parameters begins with a slash, and so may a name.
        Place::SecretsManager(name) | Place::Ssm(name) => name.strip_prefix('/').unwrap_or(name),
    };
    path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether this may be the name of a bucket, also of one from before there were rules for them.
fn is_bucket(name: &str) -> bool {
    let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().all(is_known) && !matches!(name, "" | "." | "..")
}

/// Whether the parameter store has the value from elsewhere, in whichever way the name is written.
fn is_elsewhere(aws: &Aws) -> bool {
    let Place::Ssm(name) = &aws.place else { return false };
    let name = name.to_ascii_lowercase();
    let path = name.split_once(":parameter/").map_or(&*name, |(_, path)| path);
    let path = path.strip_prefix('/').unwrap_or(path);
    ELSEWHERE.strip_prefix('/').is_some_and(|elsewhere| path.starts_with(elsewhere))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    const LIST: &str = "baton-allowed-secrets 1\n# Who has what.\n\n\
        web,web.* aws-ssm:/prod/web/* aws-secretsmanager:prod/db#web\n\
        mail s3://acme/mail.json aws-ssm:/prod/smtp\n* s3://shared/*\nadmin *\n\
        buckets s3://acme-web-*\n";

    fn allows(list: &AllowedSecrets, service: &str, reference: &str) -> bool {
        list.check(&service.parse().unwrap(), &reference.parse().unwrap()).is_ok()
    }

    #[test]
    fn p43_a_service_may_have_what_a_line_says_and_nothing_else() {
        let list = AllowedSecrets::parse(LIST).unwrap();
        for (service, reference, expected) in [
            ("web", "aws-ssm:/prod/web/token", true),
            ("web.beat", "aws-ssm:/prod/web/token", true),
            ("webs", "aws-ssm:/prod/web/token", false),
            ("web", "aws-ssm:/prod/webs", false),
            ("web", "aws-ssm:/prod/web/a/b#key", true),
            ("web", "aws-secretsmanager:prod/db#web", true),
            ("web", "aws-secretsmanager:prod/db#mail", false),
            ("web", "aws-secretsmanager:prod/db", false),
            ("mail", "s3://acme/mail.json", true),
            ("mail", "s3://acme/mail.json#user", true),
            ("mail", "s3://acme/mail.json.old", false),
            ("mail", "aws-ssm:/prod/smtp", true),
            ("mail", "aws-ssm:/prod/smtp2", false),
            ("mail", "aws-secretsmanager:/prod/smtp", false),
            ("other", "s3://shared/a", true),
            ("other", "s3://shared2/a", false),
            ("admin", "aws-secretsmanager:anything", true),
            // The member's own, which control does not give.
            ("other", "file:/run/secrets/a", true),
            ("other", "env:A", true),
            // Ways out of what is allowed.
            ("web", "aws-ssm:/prod/web/../mail", false),
            ("web", "aws-ssm:/prod/web/./../mail", false),
            ("web", "aws-ssm:/prod/web/..", false),
            ("other", "s3://shared/", false),
            ("other", "s3://shared/../acme/mail.json", false),
            ("other", "s3://shared//a", false),
            ("other", "s3://shared/a/", false),
            ("buckets", "s3://acme-web-1/a", true),
            ("buckets", "s3://acme-web-.A_9/a\\b", true),
            ("buckets", r"s3://acme-web-\..\acme-mail\smtp.json/x", false),
            ("buckets", "s3://acme-web-%2e%2e/x", false),
            ("buckets", "s3://acme-web-?x/x", false),
            ("buckets", "s3://acme-web-@host:1/x", false),
            ("admin", "s3://../x", false),
            ("admin", "s3://./x", false),
        ] {
            let parsed = reference.parse::<Reference>().is_ok();
            assert_eq!(parsed && allows(&list, service, reference), expected, "{service} {reference}");
        }
    }

    /// The parameter store gives what lies in Secrets Manager, too, under names of its own.
    #[test]
    fn p43_who_may_have_parameters_may_not_have_secrets_by_way_of_them() {
        const ARN: &str = "aws-ssm:arn:aws:ssm:eu-west-1:1:parameter";
        let path = "/aws/reference/secretsmanager/db";
        let plain = format!("aws-ssm:{path}");
        let arn = format!("{ARN}{path}");
        for (pattern, reference, expected) in [
            ("aws-ssm:*", "aws-ssm:/prod/token", true),
            ("aws-ssm:*", &plain, false),
            ("aws-ssm:*", "aws-ssm:/AWS/Reference/secretsmanager/db", false),
            ("aws-ssm:*", "aws-ssm:aws/reference/secretsmanager/db", false),
            ("aws-ssm:*", &format!("{plain}#a"), false),
            ("aws-ssm:*", &arn, false),
            ("aws-ssm:/aws*", &plain, false),
            ("aws-ssm:/aws*", "aws-ssm:/aws/service/x", true),
            ("aws-ssm:/aws/reference/*", &plain, true),
            ("aws-ssm:/aws/reference/secretsmanager/d*", &plain, true),
            (&plain, &plain, true),
            (&plain, &format!("{plain}#a"), true),
            (&format!("{ARN}/*"), &arn, false),
            (&format!("{ARN}/aws/reference/*"), &arn, true),
            (&arn, &arn, true),
            // All of it, which has the secrets themselves as well.
            ("*", &plain, true),
        ] {
            let list = AllowedSecrets::parse(&format!("baton-allowed-secrets 1\nweb {pattern}\n")).unwrap();
            assert_eq!(allows(&list, "web", reference), expected, "{pattern} {reference}");
        }
    }

    #[test]
    fn a_reference_that_no_line_can_say_exactly_is_told_so() {
        let list = AllowedSecrets::parse(LIST).unwrap();
        for reference in ["aws-ssm:/prod/a*", "s3://acme/*/b", "aws-ssm:/prod/a#*"] {
            let error = list.check(&"web".parse().unwrap(), &reference.parse().unwrap());
            let error = error.unwrap_err().to_string();
            assert!(!error.contains('`') && error.contains("no line can say exactly"), "{error}");
        }
    }

    #[test]
    fn p43_what_may_be_a_value_by_mistake_is_not_told() {
        for line in ["web hunter2", "web s3://hunter2", "web s3://a/b hunter2*"] {
            let error = AllowedSecrets::parse(&format!("baton-allowed-secrets 1\n{line}\n")).unwrap_err();
            assert!(!format!("{error:?} {error} {}", error.what).contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn who_may_not_have_a_secret_is_told_the_line_that_is_missing() {
        let list = AllowedSecrets::parse(LIST).unwrap();
        let reference: Reference = "aws-ssm:/prod/token#a".parse().unwrap();
        let error = list.check(&"web".parse().unwrap(), &reference).unwrap_err().to_string();
        assert!(error.ends_with("lacks the line `web aws-ssm:/prod/token#a`"), "{error}");
        let line = error.split('`').nth(1).unwrap();
        let list = AllowedSecrets::parse(&format!("{LIST}{line}\n")).unwrap();
        assert!(allows(&list, "web", "aws-ssm:/prod/token#a"));
    }

    #[test]
    fn p36_a_list_with_a_mistake_is_refused_with_its_line() {
        for (line, number, why) in [
            ("web", 2, "a word is missing"),
            ("web  s3://a/b", 2, "a word is missing"),
            ("web s3://a/b ", 2, "a word is missing"),
            ("w b s3://a/b", 2, "a reference"),
            ("w*b s3://a/b", 2, "the name of a service"),
            ("web, s3://a/b", 2, "the name of a service"),
            (".* s3://a/b", 2, "the name of a service"),
            ("web hunter2", 2, "a reference"),
            ("web file:/etc/*", 2, "a reference"),
            ("web env:A", 2, "a reference"),
            ("web aws*", 2, "a reference"),
            ("web s3://a/*/b", 2, "a reference"),
            ("web s3://a/**", 2, "a reference"),
            ("web s3://a/../b", 2, "a reference"),
            ("web s3://a/../*", 2, "a reference"),
            ("web s3://a/b/", 2, "a reference"),
            ("web aws-ssm:/a:3", 2, "a reference"),
            ("web s3://a/b\n\napi", 4, "a word is missing"),
        ] {
            let error = AllowedSecrets::parse(&format!("baton-allowed-secrets 1\n{line}\n")).unwrap_err();
            assert!(error.what.to_string().contains(why), "{line}: {error:?}");
            assert_eq!(error.line, number, "{line}");
        }
        for (text, why) in [
            ("", "this is not a list of allowed secrets"),
            ("web s3://a/b\n", "this is not a list of allowed secrets"),
            ("baton-allowed-secrets 2\n", "version"),
            ("baton-allowed-secrets 1\nweb s3://a/b", "not finished"),
        ] {
            let error = AllowedSecrets::parse(text).unwrap_err();
            assert!(error.what.to_string().contains(why), "{text}: {error:?}");
        }
        assert_eq!(AllowedSecrets::parse("baton-allowed-secrets 1\n").unwrap().lines(), []);
    }

    proptest! {
        #[test]
        fn p36_any_text_is_read_or_refused_and_is_what_its_lines_say(text in "([a-z.,*]{1,6} (s3://|aws-ssm:/)?[a-z/.*#]{1,9}\n){0,3}") {
            if let Ok(list) = AllowedSecrets::parse(&format!("baton-allowed-secrets 1\n{text}")) {
                let lines: Vec<String> = list.lines().iter().map(ToString::to_string).collect();
                prop_assert_eq!(lines, text.lines().map(ToString::to_string).collect::<Vec<_>>());
            }
        }
    }
}
