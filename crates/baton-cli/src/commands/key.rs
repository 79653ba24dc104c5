//! `baton key`: keys that sign, and the list of those that members trust.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use baton_core::ids::{KeyId, ReleaseId};
use baton_core::trust::{Day, Role, TrustedKey, TrustedKeys};
use baton_release::disk;
use baton_release::manifest::{self, Known};
use baton_release::remote::Remote;
use serde::Serialize;

use crate::args::{KeyGenerate, KeyList, KeyRevoke, KeyRotate, KeySign, Signs};
use crate::context::Context;
use crate::failure::Failure;
use crate::keys;
use crate::moment::now_ms;
use crate::signed;
use crate::table::table;
use crate::ui::Ui;

/// A list that is made: one key must have signed what is fetched, and one what is run.
const NEW_LIST: &str = "baton-trusted-keys 1\nthreshold releases 1\nthreshold deploys 1\n";

/// A key, as it is printed for programs.
#[derive(Debug, Serialize)]
struct KeyView {
    name: String,
    key: String,
    signs: Vec<&'static str>,
    /// None for all.
    services: Vec<String>,
    /// `trusted`, `expired` or `revoked`.
    state: &'static str,
}

/// A list, as it is printed for programs.
#[derive(Debug, Serialize)]
struct ListView {
    threshold_releases: u32,
    threshold_deploys: u32,
    keys: Vec<KeyView>,
}

/// Makes a key that is trusted from now on where the list is.
pub fn generate(args: KeyGenerate, ui: &Ui) -> Result<(), Failure> {
    let roles = args.signs.into_iter().map(|signs| match signs {
        Signs::Releases => Role::Releases,
        Signs::Deploys => Role::Deploys,
    });
    let list = match List::read(&args.trusted.file)? {
        Some(list) => list,
        None => List::parse(&args.trusted.file, NEW_LIST.to_owned())?,
    };
    add(&list, args.name, args.private, roles.collect(), args.services, ui)
}

/// Makes a key in the place of another one.
pub fn rotate(args: KeyRotate, ui: &Ui) -> Result<(), Failure> {
    let list = List::required(&args.trusted.file)?;
    let old = list.find(&args.old)?.clone();
    add(&list, args.new, args.private, old.roles, old.services, ui)?;
    ui.text(&format!(
        "next: give the list to the members; sign what runs anew: `baton key sign`, `baton deploy --renew`;\n\
         then `baton key revoke {}`\n",
        args.old
    ))
}

fn add(
    list: &List,
    name: String,
    private: Option<PathBuf>,
    roles: Vec<Role>,
    services: Vec<baton_core::ids::ServiceName>,
    ui: &Ui,
) -> Result<(), Failure> {
    let path = private.unwrap_or_else(|| PathBuf::from(format!("{name}.key")));
    let line = |id: KeyId| TrustedKey { name, id, roles, services, until: None, revoked: false };
    // What is wrong with the name is told before there is a key.
    let key = line(KeyId::from_bytes([0; 32]));
    list.with(&key)?;
    let id = keys::generate(&path)?.id();
    let key = TrustedKey { id, ..key };
    list.with(&key)?.write()?;
    ui.result(&view(&key), |_| {
        format!(
            "made key {} ({}): its private half is in {}; {} trusts it now\n",
            key.name,
            id.short(),
            path.display(),
            list.path.display()
        )
    })
}

/// Shows a list.
pub fn list(args: &KeyList, ui: &Ui) -> Result<(), Failure> {
    let list = List::required(&args.trusted.file)?.keys;
    let keys: Vec<KeyView> = list.keys().iter().map(view).collect();
    let (threshold_releases, threshold_deploys) =
        (list.threshold(Role::Releases), list.threshold(Role::Deploys));
    ui.result(&ListView { threshold_releases, threshold_deploys, keys }, |view| {
        let row = |key: &KeyView| {
            let services = if key.services.is_empty() { "*".to_owned() } else { key.services.join(",") };
            [key.name.clone(), key.key[..12].to_owned(), key.signs.join(","), services, key.state.to_owned()]
        };
        let rows: Vec<_> = view.keys.iter().map(row).collect();
        format!(
            "releases need {} of these keys, deploys {}\n\n{}",
            view.threshold_releases,
            view.threshold_deploys,
            table(["NAME", "KEY", "SIGNS", "FOR", "STATE"], &rows, ui.width)
        )
    })
}

/// Marks a key as revoked, in the list.
pub fn revoke(args: &KeyRevoke, ui: &Ui) -> Result<(), Failure> {
    let list = List::required(&args.trusted.file)?;
    let key = list.find(&args.name)?.clone();
    let revoked = TrustedKey { revoked: true, ..key.clone() };
    let text = list.text.replace(&format!("{key}\n"), &format!("{revoked}\n"));
    let list = List::parse(&list.path, text)?;
    list.write()?;
    ui.result(&view(&revoked), |_| {
        format!("key {} counts for nothing new where {} is\n", revoked.name, list.path.display())
    })?;
    for role in Role::ALL {
        let left = list.keys.keys().iter().filter(|key| !key.revoked && key.roles.contains(&role)).count();
        if (left as u64) < u64::from(list.keys.threshold(role)) {
            let needed = list.keys.threshold(role);
            ui.remark(&format!(
                "{} need {needed} keys, and {left} are left: none can be signed",
                role.word()
            ));
        }
    }
    Ok(())
}

/// Signs a release that the server has.
pub fn sign(args: &KeySign, context: &Context) -> Result<(), Failure> {
    let keys = keys::read(&args.keys)?;
    if keys.is_empty() {
        return Err(Failure::Usage("name a key with --key, or put its text into BATON_KEY".to_owned()));
    }
    let releases = context.client.releases()?;
    let mut found = releases.iter().filter(|release| release.id.starts_with(&args.release));
    let id = match (found.next(), found.next()) {
        (Some(release), None) => release.id.parse::<ReleaseId>(),
        (None, _) => args.release.parse(),
        (Some(_), Some(_)) => {
            return Err(Failure::Usage(format!(
                "several releases begin with {}: write more digits",
                args.release
            )));
        }
    };
    let id = id.map_err(|error| Failure::Usage(error.to_string()))?;
    let store = Remote::of(context.client.control());
    // By its hash it is the release, whoever sent it.
    let manifest = manifest::read(id, &store, Known::default())?;
    signed::sign(id, &manifest, &keys, &store, &context.ui)
}

fn view(key: &TrustedKey) -> KeyView {
    let over = key.until.is_some_and(|until| until < Day::of(now_ms()));
    KeyView {
        name: key.name.clone(),
        key: key.id.to_string(),
        signs: key.roles.iter().map(|role| role.word()).collect(),
        services: key.services.iter().map(ToString::to_string).collect(),
        state: match (key.revoked, over) {
            (true, _) => "revoked",
            (false, true) => "expired",
            (false, false) => "trusted",
        },
    }
}

/// A list of trusted keys, and the file it is in.
struct List {
    path: PathBuf,
    text: String,
    keys: TrustedKeys,
}

impl List {
    fn parse(path: &Path, text: String) -> Result<Self, Failure> {
        let mistake = |source| Failure::TrustedKeys { path: path.to_owned(), source };
        let keys = TrustedKeys::parse(&text).map_err(mistake)?;
        Ok(Self { path: path.to_owned(), text, keys })
    }

    fn read(path: &Path) -> Result<Option<Self>, Failure> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(path, text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Failure::Read { path: path.to_owned(), source }),
        }
    }

    fn required(path: &Path) -> Result<Self, Failure> {
        Self::read(path)?.ok_or_else(|| {
            let path = path.display();
            Failure::Usage(format!(
                "there is no {path}: `baton key generate NAME` makes one, or name it with --trusted"
            ))
        })
    }

    fn find(&self, name: &str) -> Result<&TrustedKey, Failure> {
        let named = |key: &&TrustedKey| key.name == name || key.id.to_string() == name;
        self.keys.keys().iter().find(named).ok_or_else(|| {
            let known: Vec<&str> = self.keys.keys().iter().map(|key| key.name.as_str()).collect();
            Failure::Usage(format!(
                "there is no key {name} in {}: there are {}",
                self.path.display(),
                known.join(", ")
            ))
        })
    }

    /// The list with another key at its end.
    fn with(&self, key: &TrustedKey) -> Result<Self, Failure> {
        Self::parse(&self.path, format!("{}{key}\n", self.text))
    }

    fn write(&self) -> Result<(), Failure> {
        let failed = |source| Failure::Write { path: self.path.clone(), source };
        // A name alone has no directory to make durable.
        let path = std::path::absolute(&self.path).map_err(failed)?;
        disk::replace(&path, self.text.as_bytes()).map_err(|error| failed(error.source))
    }
}
