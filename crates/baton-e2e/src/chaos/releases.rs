//! The releases of a chaotic fleet: `baton-web` in its folder, and what is wrong with it.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::ill::{BAKE, ILL, Ill};

/// What is new in each release, beside its number: so much that fetching it is something.
const NEW_BYTES: usize = 64 << 10;

/// Writes the release with this number, and returns its folder.
///
/// # Errors
/// If it cannot be written.
pub fn write(folder: &Path, web: &Path, number: usize, ill: Option<Ill>) -> anyhow::Result<PathBuf> {
    let at = folder.join("release");
    std::fs::create_dir_all(&at).with_context(|| format!("cannot make {}", at.display()))?;
    if !at.join("web").exists() {
        std::fs::copy(web, at.join("web")).with_context(|| format!("cannot copy {}", web.display()))?;
    }
    let mut rng = fastrand::Rng::with_seed(number as u64);
    let new: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(NEW_BYTES).collect();
    std::fs::write(at.join("new"), new)?;
    std::fs::write(at.join("baton.toml"), settings(number, ill))?;
    Ok(at)
}

/// One member first, then half of them at a time. Probes are close enough to find out in the bake what shows there: two that
/// fail, of 400 ms each, 200 ms apart.
fn settings(number: usize, ill: Option<Ill>) -> String {
    let ill = ill.map(|ill| format!("{ILL} = \"{ill}\"\n")).unwrap_or_default();
    format!(
        "service = \"web\"\n\
         [run]\ncommand = [\"./web\"]\ndrain = \"5s\"\n\
         [[run.listen]]\nname = \"http\"\naddress = \"0.0.0.0:8080\"\n\
         [run.health]\nhttp = \"/health\"\nstartup_timeout = \"3s\"\ninterval = \"200ms\"\n\
         timeout = \"400ms\"\nfailures = 2\n\
         [rollout]\nphases = [\"1\", \"50%\"]\nmax_unhealthy = \"50%\"\nbake = \"{}ms\"\n\
         [env]\nHOST = \"0.0.0.0\"\nANSWERS_BY = \"BATON_RELEASE\"\nNUMBER = \"{number}\"\n{ill}",
        BAKE.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_is_another_one_and_its_settings_are_right() {
        for ill in Ill::ALL.into_iter().map(Some).chain([None]) {
            let read = baton_core::settings::parse("baton.toml", &settings(7, ill));
            assert!(read.is_ok(), "{ill:?}: {read:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("program"), "x").unwrap();
        let new = |number| {
            let at = write(folder.path(), &folder.path().join("program"), number, None).unwrap();
            std::fs::read(at.join("new")).unwrap()
        };
        assert_ne!(new(1), new(2));
    }
}
