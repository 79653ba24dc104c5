//! The list of which service may have which secret, in a file that somebody gave.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use baton_core::access::{AllowedSecrets, NotAllowed};
use baton_core::ids::ServiceName;
use baton_core::release::TextError;
use baton_core::run::secrets::Reference;
use baton_release::disk::{DiskError, failed};

use crate::reread::{Reread, Trouble};

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum AllowedError {
    /// The file cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It is no list.
    #[error("cannot use the list of allowed secrets in {}", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        #[source]
        source: TextError,
    },
}

/// Which service may have which secret.
pub(crate) struct Allowed {
    path: PathBuf,
    list: Reread<Arc<AllowedSecrets>>,
}

impl Allowed {
    /// Reads the list in a file.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn open(path: PathBuf) -> Result<Self, AllowedError> {
        let list = Reread::open(vec![path.clone()], || read(&path))?;
        Ok(Self { path, list })
    }

    /// Whether a service may have all of these.
    ///
    /// # Errors
    /// The first that it may not have, and why.
    pub(crate) fn check<'a>(
        &self,
        service: &ServiceName,
        references: impl IntoIterator<Item = &'a Reference>,
    ) -> Result<(), NotAllowed> {
        let (list, _) = self.list.get(|| read(&self.path));
        references.into_iter().try_for_each(|reference| list.check(service, reference))
    }

    /// What somebody has to do about the file, if anything, for who may see what is in it (`all`) or others.
    pub(crate) fn warning(&self, all: bool) -> Option<String> {
        let (_, trouble) = self.list.get(|| read(&self.path));
        trouble.map(|Trouble { full, brief }| {
            let why = if all { full } else { brief };
            format!("the list is not used as it is now, but as it was before: {why}")
        })
    }
}

fn read(path: &Path) -> Result<Arc<AllowedSecrets>, AllowedError> {
    let text = fs::read_to_string(path).map_err(failed("read", path))?;
    let list = AllowedSecrets::parse(&text);
    list.map(Arc::new).map_err(|source| AllowedError::List { path: path.to_owned(), source })
}
