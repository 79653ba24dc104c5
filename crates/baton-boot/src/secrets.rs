//! The secrets of what runs: resolved once for a release, before its first launch here, so that every launch of it after
//! that gets the same; kept in memory, and on disk where the settings say so. Nothing here is ever said.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use baton_core::ids::ReleaseId;
use baton_core::run::environment::is_own;
use baton_core::run::secrets::{
    Keep, Lacking, Reference, SECRET_BYTES_MAX, SECRETS_BYTES_MAX, Secret, Secrets, Values, fits, hide,
};
use baton_release::releases::ReleasesDir;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::log;

/// How long control may take, whether it is away or asks others: beyond what it gives them itself, and short enough that
/// a slot is not held for nothing.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// The bootloader's own environment.
pub type Environment = [(OsString, OsString)];

/// What control says of the secrets of a release.
pub type Told = Result<Vec<(Reference, Secret)>, String>;

/// A question for control, which the session asks and answers.
#[derive(Debug)]
pub struct Ask {
    /// Of which release.
    pub release: ReleaseId,
    /// Who waits for it.
    pub reply: SyncSender<Told>,
    /// Nobody waits any more then.
    pub until: Instant,
}

/// Gets the secrets of releases, and keeps them.
pub struct Resolver {
    environment: Vec<(OsString, OsString)>,
    releases: Arc<ReleasesDir>,
    asks: UnboundedSender<Ask>,
    known: Mutex<BTreeMap<ReleaseId, Values>>,
}

impl Resolver {
    /// One that asks control by `asks`.
    pub fn new(
        environment: Vec<(OsString, OsString)>,
        releases: Arc<ReleasesDir>,
        asks: UnboundedSender<Ask>,
    ) -> Self {
        Self { environment, releases, asks, known: Mutex::default() }
    }

    /// The values for a release that is on disk. It waits for files and for control.
    ///
    /// # Errors
    /// Says which one is not to be had, and why.
    pub fn resolve(&self, release: ReleaseId, secrets: &Secrets) -> Result<Values, Lacking> {
        if secrets.is_empty() {
            return Ok(Values::default());
        }
        let known = self.known().get(&release).cloned();
        if let Some(values) = known {
            // What was fetched anew has nothing beside it.
            if !self.releases.has_kept_secrets(release) {
                self.keep(release, secrets.keep, &values);
            }
            return Ok(values);
        }
        let values = match self.kept(release, secrets) {
            Some(values) => values,
            None => {
                let values = self.ask_all(release, secrets)?;
                self.keep(release, secrets.keep, &values);
                values
            }
        };
        self.known().insert(release, values.clone());
        Ok(values)
    }

    /// A text that others are told, without any value that is known here.
    pub fn hide(&self, text: &str) -> String {
        hide(text, self.known().values())
    }

    /// Forgets those of releases that are not here any more.
    pub fn forget_gone(&self) {
        self.known().retain(|release, _| self.releases.has(*release));
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ReleaseId, Values>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_all(&self, release: ReleaseId, secrets: &Secrets) -> Result<Values, Lacking> {
        let first = secrets.pinned().find(|pinned| pinned.reference.aws().is_some());
        let told: BTreeMap<Reference, Secret> = match first {
            None => BTreeMap::new(),
            Some(first) => {
                let answer = self.ask_control(release);
                let answer = answer.map_err(|why| Lacking::of(None, &first.reference, why))?;
                answer.map_err(Lacking::told)?.into_iter().collect()
            }
        };
        assemble(secrets, |reference| match told.get(reference) {
            Some(value) => Ok(value.clone()),
            None => local(&self.environment, reference),
        })
    }

    fn ask_control(&self, release: ReleaseId) -> Result<Told, &'static str> {
        let (reply, answer) = sync_channel(1);
        let until = Instant::now() + ANSWER_MAX;
        // It is heard as long as the session lives, which is as long as the member.
        let _ = self.asks.send(Ask { release, reply, until });
        answer.recv_timeout(ANSWER_MAX).map_err(|error| match error {
            RecvTimeoutError::Timeout => "control has it, and does not answer",
            RecvTimeoutError::Disconnected => "control has it, and this member is leaving",
        })
    }

    fn kept(&self, release: ReleaseId, secrets: &Secrets) -> Option<Values> {
        match secrets.keep {
            Keep::Memory => None,
            Keep::Disk => match self.releases.kept_secrets(release) {
                Ok(text) => text.and_then(|text| from_text(&text, secrets)),
                Err(error) => {
                    log::say(format_args!("cannot read the secrets that were kept: {}", log::chain(&error)));
                    None
                }
            },
        }
    }

    fn keep(&self, release: ReleaseId, keep: Keep, values: &Values) {
        match keep {
            Keep::Memory => {}
            Keep::Disk => {
                if let Err(error) = self.releases.keep_secrets(release, &to_text(values)) {
                    let why = log::chain(&error);
                    log::say(format_args!("the secrets of release {} are not kept: {why}", release.short()));
                }
            }
        }
    }
}

/// The value of a reference that the member resolves itself.
pub fn local(environment: &Environment, reference: &Reference) -> Result<Secret, String> {
    match reference {
        Reference::File(path) => {
            let secret = read(path)?;
            // As whoever writes a file by hand or by `echo` ends it.
            let text = secret.reveal();
            let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
            Ok(line.map(|line| Secret::new(line.to_owned())).unwrap_or(secret))
        }
        Reference::Env(name) => {
            let found = environment.iter().find(|(known, _)| known == name.as_str());
            let (_, value) = found.ok_or("baton-boot has no such variable")?;
            value
                .to_str()
                .map(|value| Secret::new(value.to_owned()))
                .ok_or("it is not text in UTF-8".to_owned())
        }
        Reference::Aws(_) => {
            Err("control resolves it, for what is deployed to members with BATON_SERVER".to_owned())
        }
    }
}

fn read(path: &str) -> Result<Secret, String> {
    // A pipe that nobody writes to would hold up whoever opens it, for ever.
    let without_waiting = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(without_waiting).open(path);
    let file = file.map_err(|error| error.to_string())?;
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is no file".to_owned());
    }
    let mut text = String::new();
    let read = file.take(SECRET_BYTES_MAX as u64 + 1).read_to_string(&mut text);
    let secret = Secret::new(text);
    match read {
        Ok(bytes) if bytes > SECRET_BYTES_MAX => Err(format!("it is longer than {SECRET_BYTES_MAX} bytes")),
        Ok(_) => Ok(secret),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err("it is not text in UTF-8".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The variables that follow from the values of all references.
pub fn assemble(
    secrets: &Secrets,
    resolve: impl Fn(&Reference) -> Result<Secret, String>,
) -> Result<Values, Lacking> {
    let mut merged: BTreeMap<String, Secret> = BTreeMap::new();
    for pinned in &secrets.from {
        let object = resolve(&pinned.reference).and_then(|text| members(&text));
        merged.extend(object.map_err(|why| Lacking::of(None, &pinned.reference, why))?);
    }
    let mut named = Vec::new();
    for (name, pinned) in &secrets.env {
        let value = resolve(&pinned.reference).and_then(|value| fit(name, value));
        named.push((name.clone(), value.map_err(|why| Lacking::of(Some(name), &pinned.reference, why))?));
    }
    let values = Values { merged: merged.into_iter().collect(), named };
    let all = values.merged.iter().chain(&values.named);
    let bytes: usize = all.map(|(name, value)| name.len() + value.reveal().len()).sum();
    if bytes > SECRETS_BYTES_MAX {
        return Err(Lacking::told(format!("the secrets are more than {SECRETS_BYTES_MAX} bytes together")));
    }
    Ok(values)
}

fn fit(name: &str, value: Secret) -> Result<Secret, String> {
    fits(name, &value).map(|()| value).map_err(|unfit| unfit.to_string())
}

/// Whether what is merged may set this variable.
fn is_settable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0']) && !is_own(name)
}

/// The variables in a JSON object.
fn members(text: &Secret) -> Result<Vec<(String, Secret)>, String> {
    // What the reader of JSON says of a mistake may quote the text; where it is does not.
    let object: Map<String, Value> = serde_json::from_str(text.reveal()).map_err(|error| {
        format!("it is no JSON object (line {}, column {})", error.line(), error.column())
    })?;
    object
        .into_iter()
        .map(|(name, value)| {
            if !is_settable(&name) {
                return Err(format!("{name:?} in it is not the name of a variable that may be set"));
            }
            let value = match value {
                Value::String(text) => Secret::new(text),
                // Of others, what is read is not what was written.
                Value::Number(number) if !number.is_f64() => Secret::new(number.to_string()),
                Value::Bool(on) => Secret::new(on.to_string()),
                Value::Number(_) | Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(format!("{name:?} in it is no text, whole number, true or false"));
                }
            };
            let value = fit(&name, value).map_err(|why| format!("{name:?} in it: {why}"))?;
            Ok((name, value))
        })
        .collect()
}

/// What is kept on disk: who may read the file has the values.
fn to_text(values: &Values) -> Secret {
    let list = |values: &[(String, Secret)]| -> Vec<Value> {
        values.iter().map(|(name, value)| json!([name, value.reveal()])).collect()
    };
    Secret::new(json!({ "merged": list(&values.merged), "named": list(&values.named) }).to_string())
}

/// Nothing when that is not what was written for a release with these references: the values are asked for again.
fn from_text(text: &Secret, of: &Secrets) -> Option<Values> {
    let mut all: Map<String, Value> = serde_json::from_str(text.reveal()).ok()?;
    let mut list = |key: &str| -> Option<Vec<(String, Secret)>> {
        let pairs: Vec<(String, String)> = serde_json::from_value(all.remove(key)?).ok()?;
        Some(pairs.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
    };
    let (merged, named) = (list("merged")?, list("named")?);
    let right = named.iter().map(|(name, _)| name).eq(of.env.iter().map(|(name, _)| name))
        && (merged.is_empty() || !of.from.is_empty())
        && merged.iter().all(|(name, _)| is_settable(name))
        && merged.iter().chain(&named).all(|(name, value)| fits(name, value).is_ok());
    right.then_some(Values { merged, named })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(from: &[&str], env: &[(&str, &str)]) -> Secrets {
        let reference = |text: &str| text.parse::<Reference>().unwrap().into();
        Secrets {
            from: from.iter().map(|text| reference(text)).collect(),
            env: env.iter().map(|(name, text)| ((*name).to_owned(), reference(text))).collect(),
            keep: Keep::Disk,
        }
    }

    fn shown(values: &[(String, Secret)]) -> Vec<(&str, &str)> {
        values.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect()
    }

    #[test]
    fn of_what_is_merged_the_last_counts_and_the_order_is_that_of_the_settings() {
        let table = |reference: &Reference| {
            Ok(Secret::new(
                match reference.to_string().as_str() {
                    "file:/one" => r#"{"A":"1","B":"1","N":5,"T":true}"#,
                    "file:/two" => r#"{"B":"2"}"#,
                    _ => "named",
                }
                .to_owned(),
            ))
        };
        let values = assemble(&secrets(&["file:/one", "file:/two"], &[("B", "env:X")]), table).unwrap();
        assert_eq!(shown(&values.merged), [("A", "1"), ("B", "2"), ("N", "5"), ("T", "true")]);
        assert_eq!(shown(&values.named), [("B", "named")]);
        let values = assemble(&secrets(&["file:/two", "file:/one"], &[]), table).unwrap();
        assert_eq!(shown(&values.merged)[1], ("B", "1"));
    }

    #[test]
    fn p38_what_is_kept_on_disk_gives_no_variable_that_the_release_does_not_name() {
        // With a `from` it names none of what is merged: who trusts keys keeps nothing then, see `Gate::secrets`.
        let both = secrets(&["file:/one"], &[("B", "env:X")]);
        let named = secrets(&[], &[("B", "env:X")]);
        let values = |merged: &[&str], named: &[&str]| {
            let list = |names: &[&str]| {
                names.iter().map(|name| ((*name).to_owned(), Secret::new("v".to_owned()))).collect()
            };
            Values { merged: list(merged), named: list(named) }
        };
        for (of, kept, right) in [
            (&both, values(&["A"], &["B"]), true),
            (&both, values(&[], &["B"]), true),
            (&named, values(&[], &["B"]), true),
            (&named, values(&["LD_PRELOAD"], &["B"]), false),
            (&named, values(&[], &["LD_PRELOAD"]), false),
            (&named, values(&[], &["B", "LD_PRELOAD"]), false),
            (&named, values(&[], &[]), false),
            (&both, values(&["BATON_RELEASE"], &["B"]), false),
            (&both, values(&["A=B"], &["B"]), false),
        ] {
            assert_eq!(from_text(&to_text(&kept), of), right.then_some(kept.clone()), "{kept:?}");
        }
        for damaged in
            ["", "{}", "[]", r#"{"merged":[],"named":[["B",1]]}"#, r#"{"merged":[],"named":[["B"]]}"#]
        {
            assert_eq!(from_text(&Secret::new(damaged.to_owned()), &named), None, "{damaged}");
        }
    }

    #[test]
    fn p28_what_is_kept_on_disk_is_kept_again_when_the_release_was_fetched_anew() {
        let dir = tempfile::tempdir().unwrap();
        let releases = Arc::new(ReleasesDir::open(dir.path()).unwrap());
        let release = ReleaseId::from_bytes([7; 32]);
        let home = dir.path().join(format!("releases/{release}"));
        let (asks, _) = tokio::sync::mpsc::unbounded_channel();
        let environment = vec![("X".into(), "hunter2".into())];
        let resolver = Resolver::new(environment, releases.clone(), asks);
        let of = secrets(&[], &[("A", "env:X")]);
        for keep in [Keep::Disk, Keep::Memory] {
            let of = Secrets { keep, ..of.clone() };
            std::fs::create_dir(&home).unwrap();
            let first = resolver.resolve(release, &of).unwrap();
            std::fs::remove_dir_all(&home).unwrap();
            std::fs::create_dir(&home).unwrap();
            assert_eq!(resolver.resolve(release, &of).unwrap(), first);
            let kept = releases.kept_secrets(release).unwrap().and_then(|text| from_text(&text, &of));
            assert_eq!(kept, (keep == Keep::Disk).then_some(first));
            std::fs::remove_dir_all(&home).unwrap();
        }
    }

    #[test]
    fn p43_f83_what_is_lacking_is_named_and_no_value_is_told() {
        for (value, why) in [
            (r#"["hunter2"]"#, "no JSON object (line 1"),
            ("hunter2", "no JSON object (line 1"),
            (r#"{"A":["hunter2"]}"#, "\"A\" in it is no text"),
            (r#"{"A":27182818284590452353602874}"#, "\"A\" in it is no text, whole number"),
            (r#"{"A":2.50}"#, "\"A\" in it is no text, whole number"),
            (r#"{"A":null}"#, "\"A\" in it is no text"),
            (r#"{"BATON_TOKEN":"hunter2"}"#, "\"BATON_TOKEN\" in it is not the name"),
            (r#"{"A=":"hunter2"}"#, "is not the name"),
            (r#"{"A":"hunter2\u0000"}"#, "\"A\" in it: it has a NUL"),
        ] {
            let lacking = assemble(&secrets(&["file:/x.json"], &[]), |_| Ok(Secret::new(value.to_owned())));
            let told = format!("{} {0:?}", lacking.unwrap_err());
            assert!(told.contains("what is merged from file:/x.json cannot be had"), "{told}");
            assert!(told.replace('\\', "").contains(why), "{told}");
            assert!(!["hunter2", "27182", "2.5"].iter().any(|value| told.contains(value)), "{told}");
        }
        let long = format!("{{\"A\":\"{}\"}}", "x".repeat(SECRET_BYTES_MAX - 2));
        let lacking = assemble(&secrets(&["file:/x.json"], &[]), |_| Ok(Secret::new(long.clone())));
        assert!(
            lacking
                .unwrap_err()
                .to_string()
                .ends_with("\"A\" in it: it is longer than a variable may be, 131072 bytes with its name")
        );
        let many: Vec<String> = (0..9).map(|number| format!("V{number}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "env:X")).collect();
        let lacking = assemble(&secrets(&[], &many), |_| Ok(Secret::new("x".repeat(SECRET_BYTES_MAX - 9))));
        assert!(lacking.unwrap_err().to_string().contains("more than 1048576 bytes"));
        let environment = [("X".into(), "hunter2\0".into())];
        let named = secrets(&[], &[("DB_PASSWORD", "env:X")]);
        let told = assemble(&named, |reference| local(&environment, reference)).unwrap_err().to_string();
        assert_eq!(
            told,
            "the secret DB_PASSWORD (env:X) cannot be had: it has a NUL character, which no variable can have"
        );
        let told = assemble(&named, |reference| local(&[], reference)).unwrap_err().to_string();
        assert_eq!(told, "the secret DB_PASSWORD (env:X) cannot be had: baton-boot has no such variable");
        let aws = assemble(&secrets(&[], &[("A", "aws-ssm:/a")]), |reference| local(&[], reference));
        assert!(aws.unwrap_err().to_string().contains("BATON_SERVER"));
    }

    #[test]
    fn a_file_is_read_without_the_line_feed_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let reference: Reference = format!("file:{}", path.display()).parse().unwrap();
        assert!(local(&[], &reference).unwrap_err().contains("No such file"));
        for (text, value) in
            [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("", ""), ("a ", "a ")]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(local(&[], &reference).unwrap().reveal(), value, "{text:?}");
        }
        let is = |why: &str| assert_eq!(local(&[], &reference).unwrap_err(), why);
        std::fs::write(&path, [0xff]).unwrap();
        is("it is not text in UTF-8");
        std::fs::write(&path, "x".repeat(SECRET_BYTES_MAX + 1)).unwrap();
        is("it is longer than 131072 bytes");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        is("it is no file");
        std::fs::remove_dir(&path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
        is("it is no file");
        assert_eq!(local(&[], &"file:/dev/zero".parse().unwrap()).unwrap_err(), "it is no file");
    }
}
