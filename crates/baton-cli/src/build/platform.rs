//! What machines must have in common to use each other's outputs.

use std::fs;

/// The system, the processor, and the distribution with its version: `linux x86_64 debian 12`.
pub fn platform() -> String {
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("{system} {processor} {}", distribution(&os_release)).trim_end().to_owned()
}

/// `ID` and `VERSION_ID` of an `os-release` file.
fn distribution(os_release: &str) -> String {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\''])
    };
    format!("{} {}", value("ID"), value("VERSION_ID")).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_its_name_and_version() {
        let text = "PRETTY_NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n";
        assert_eq!(distribution(text), "debian 12");
        assert_eq!(distribution("ID=arch\n"), "arch");
        assert_eq!(distribution(""), "");
    }
}
