//! Whose signatures a member believes: a text that operators write, and put where its bootloader finds it.
//!
//! ```text
//! baton-trusted-keys 1
//! # How many keys must have signed.
//! threshold releases 1
//! threshold deploys 2
//! # NAME, key, what it may sign, for which services.
//! key ci 6437b3… releases web,api
//! key ada 2d7116… releases,deploys *
//! key grace 177620… deploys * until 2027-01-31
//! key eve 5c1bed… deploys * revoked
//! ```

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use super::Role;
use crate::ids::{KeyId, ServiceName, valid_name};
use crate::output::time::{date, days};
use crate::release::lines::{Lines, Words};
use crate::release::{Fault, Text, TextError};

/// Longest list in bytes: far more keys than anybody can keep track of.
pub const TRUSTED_KEYS_BYTES_MAX: usize = 64 << 10;

const MS_A_DAY: u64 = 24 * 60 * 60 * 1000;

/// Whose signatures a member believes, and how many it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKeys {
    releases: u32,
    deploys: u32,
    keys: Vec<TrustedKey>,
}

/// A key that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// What people call it.
    pub name: String,
    /// The key.
    pub id: KeyId,
    /// What it may sign; never empty.
    pub roles: Vec<Role>,
    /// For which services; none when for all.
    pub services: Vec<ServiceName>,
    /// The last day on which it counts for what is new, in UTC.
    pub until: Option<Day>,
    /// Whether it counts for nothing new any more.
    pub revoked: bool,
}

/// A day, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(u64);

impl Day {
    /// The day on which this moment is, in milliseconds since 1970.
    pub const fn of(unix_ms: u64) -> Self {
        Self(unix_ms / MS_A_DAY)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-').map(|part| part.parse::<u64>().ok());
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        // A number that is too large for its place makes another day, which is spelled otherwise.
        let small = year < 10_000 && month < 100 && day < 100;
        let found = small.then(|| days(year, month, day))??;
        Some(Self(found)).filter(|found| found.to_string() == text)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.0);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl TrustedKeys {
    /// Reads a list.
    ///
    /// # Errors
    /// Says what is wrong, and in which line. A list that would check nothing is wrong.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        if text.len() > TRUSTED_KEYS_BYTES_MAX {
            let what = Fault::TooLong { max: TRUSTED_KEYS_BYTES_MAX };
            return Err(TextError { text: Text::TrustedKeys, line: 1, what });
        }
        let mut lines = Lines::new(Text::TrustedKeys, text)?;
        lines.skip_remarks()?;
        let (releases, deploys) =
            (threshold(&mut lines, Role::Releases)?, threshold(&mut lines, Role::Deploys)?);
        if releases + deploys == 0 {
            let why = "both are 0, so that nothing would be checked";
            return Err(lines.fault(Fault::Setting { key: "threshold", why }));
        }
        let mut keys: Vec<TrustedKey> = Vec::new();
        while !lines.is_empty() {
            let mut words = lines.expect("key")?;
            let key = key(&mut words)?;
            if keys.iter().any(|known| known.id == key.id || known.name == key.name) {
                return Err(words.fault(Fault::Twice(key.name)));
            }
            keys.push(key);
            lines.skip_remarks()?;
        }
        Ok(Self { releases, deploys, keys })
    }

    /// How many keys must have signed; 0 where nobody has to.
    pub const fn threshold(&self, role: Role) -> u32 {
        match role {
            Role::Releases => self.releases,
            Role::Deploys => self.deploys,
        }
    }

    /// The keys, in the order of the list.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    /// The key, if it is in the list.
    pub fn find(&self, id: &KeyId) -> Option<&TrustedKey> {
        self.keys.iter().find(|key| key.id == *id)
    }
}

impl TrustedKey {
    /// Whether it may sign such things of this service.
    pub fn may_sign(&self, role: Role, service: &ServiceName) -> bool {
        self.roles.contains(&role) && (self.services.is_empty() || self.services.contains(service))
    }
}

impl fmt::Display for TrustedKey {
    /// Its line, as the list has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, id, roles, services, until, revoked } = self;
        let roles: Vec<&str> = roles.iter().map(|role| role.word()).collect();
        let services: Vec<&str> = services.iter().map(ServiceName::as_str).collect();
        let services = if services.is_empty() { "*".to_string() } else { services.join(",") };
        write!(f, "key {name} {id} {} {services}", roles.join(","))?;
        if let Some(until) = until {
            write!(f, " until {until}")?;
        }
        if *revoked { f.write_str(" revoked") } else { Ok(()) }
    }
}

fn threshold(lines: &mut Lines<'_>, role: Role) -> Result<u32, TextError> {
    let mut words = lines.expect("threshold")?;
    words.one_of(&[(role.word(), ())])?;
    let threshold: u16 = words.value("a number")?;
    words.end()?;
    lines.skip_remarks()?;
    Ok(threshold.into())
}

fn key(words: &mut Words<'_>) -> Result<TrustedKey, TextError> {
    let not = |what, text: &str| Fault::NotA { what, text: text.to_string() };
    let name = words.word()?;
    if !valid_name(name) {
        return Err(words.fault(not("a key's name", name)));
    }
    let id = words.value("a key")?;
    let mut roles = Vec::new();
    for word in words.word()?.split(',') {
        let role = Role::ALL.into_iter().find(|role| role.word() == word && !roles.contains(role));
        roles.push(role.ok_or_else(|| words.fault(Fault::UnknownWord(word.to_string())))?);
    }
    let mut services = Vec::new();
    match words.word()? {
        "*" => {}
        list => {
            for name in list.split(',') {
                let service = name.parse().map_err(|_| words.fault(not("a service's name", name)))?;
                services.push(service);
            }
        }
    }
    let mut key = TrustedKey { name: name.to_string(), id, roles, services, until: None, revoked: false };
    while !words.is_empty() {
        match words.word()? {
            "until" if key.until.is_none() && !key.revoked => {
                let day = words.word()?;
                let until =
                    Day::parse(day).ok_or_else(|| words.fault(not("a day such as 2027-01-31", day)))?;
                key.until = Some(until);
            }
            "revoked" if !key.revoked => key.revoked = true,
            other => return Err(words.fault(Fault::UnknownWord(other.to_string()))),
        }
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    fn id(byte: u8) -> KeyId {
        KeyId::from_bytes([byte; 32])
    }

    fn list() -> String {
        format!(
            "baton-trusted-keys 1\n# How many.\n\nthreshold releases 1\nthreshold deploys 2\n\
             key ci {} releases web,api\nkey ada {} releases,deploys *\n\n# On leave.\n\
             key grace {} deploys * until 2027-01-31 revoked\n",
            id(1),
            id(2),
            id(3)
        )
    }

    #[test]
    fn a_list_says_who_may_sign_what_for_whom() {
        let keys = TrustedKeys::parse(&list()).unwrap();
        assert_eq!((keys.threshold(Role::Releases), keys.threshold(Role::Deploys)), (1, 2));
        let service = |name: &str| name.parse::<ServiceName>().unwrap();
        let [ci, ada, grace] = keys.keys() else { panic!("{keys:?}") };
        assert!(ci.may_sign(Role::Releases, &service("web")));
        assert!(
            !ci.may_sign(Role::Releases, &service("mail")) && !ci.may_sign(Role::Deploys, &service("web"))
        );
        assert!(ada.may_sign(Role::Deploys, &service("mail")));
        assert_eq!((grace.until.unwrap().to_string().as_str(), grace.revoked), ("2027-01-31", true));
        for key in keys.keys() {
            assert!(list().contains(&key.to_string()), "{key}");
        }
        assert_eq!(keys.find(&id(2)), Some(ada));
    }

    #[test]
    fn f99_a_list_with_a_mistake_is_refused_with_its_line() {
        let right = list();
        for (line, wrong, why) in [
            (1, right.replace("keys 1", "keys 2"), "version"),
            (1, String::new(), "this is not a list of trusted keys"),
            (4, right.replace("threshold releases 1", "threshold releases -1"), "a number"),
            (5, right.replace("threshold deploys 2\n", ""), "threshold"),
            (
                6,
                right.replace("releases 1", "releases 0").replace("deploys 2", "deploys 0"),
                "nothing would be",
            ),
            (6, right.replace("key ci", "key c\u{1b}i"), "a key's name"),
            (6, right.replace(&id(1).to_string(), "0101"), "a key"),
            (6, right.replace("releases web", "releases,admin web"), "\"admin\" is not known"),
            (6, right.replace("releases web", "releases,releases web"), "is not known"),
            (6, right.replace("web,api", "web,"), "a service's name"),
            (7, right.replace("key ada", "key ci"), "\"ci\" is there already"),
            (7, right.replace(&id(2).to_string(), &id(1).to_string()), "\"ada\" is there already"),
            (10, right.replace("2027-01-31", "2027-02-29"), "a day"),
            (10, right.replace("2027-01-31", "2027-1-31"), "a day"),
            (10, right.replace(" revoked", " retired"), "\"retired\" is not known"),
            (10, right[..right.len() - 1].to_string(), "not finished"),
            (1, right + &"#".repeat(TRUSTED_KEYS_BYTES_MAX), "more than"),
        ] {
            let error = TrustedKeys::parse(&wrong).unwrap_err();
            assert!(error.what.to_string().contains(why) && error.line == line, "{error:?} for {why}");
        }
    }

    proptest! {
        #[test]
        fn every_day_is_read_as_it_is_printed(day in 0u64..2_932_897) {
            prop_assert_eq!(Day::parse(&Day(day).to_string()), Some(Day(day)));
        }

        #[test]
        fn p36_any_text_is_read_or_refused(text in ".*", at in 0usize..400) {
            let _ = TrustedKeys::parse(&text);
            let mut list = list();
            list.insert_str((0..=at.min(list.len())).rev().find(|&at| list.is_char_boundary(at)).unwrap(), &text);
            let _ = TrustedKeys::parse(&list);
        }
    }
}
