//! With what control shows a Prometheus server who it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use baton_core::run::secrets::Secret;

/// Longest file: tokens that clouds give have some kilobytes.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// A file that only the server reads. It is read at every question, so who replaces it need not restart the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrometheusLogin {
    /// A token, shown as `Authorization: Bearer`.
    Token(PathBuf),
    /// `NAME:PASSWORD`, shown as `Authorization: Basic`.
    Password(PathBuf),
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The file cannot be read.
    #[error("cannot read {} for Prometheus", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no token in it.
    #[error(
        "{} has no token for Prometheus in it: write one line without spaces, of at most {FILE_BYTES_MAX} bytes",
        .0.display()
    )]
    NoToken(PathBuf),
    /// There is no name and password in it.
    #[error(
        "{} has no password for Prometheus in it: write one line, NAME:PASSWORD, of at most {FILE_BYTES_MAX} bytes",
        .0.display()
    )]
    NoPassword(PathBuf),
}

impl PrometheusLogin {
    /// Where it is.
    pub(super) const fn path(&self) -> &PathBuf {
        match self {
            Self::Token(path) | Self::Password(path) => path,
        }
    }

    /// The header that shows it, as it is now. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, or has none in it. No error says what is in it.
    pub(super) fn header(&self) -> Result<Secret, LoginError> {
        let read = |path: &PathBuf| {
            let mut text = String::new();
            let file =
                File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
            let text = Secret::new(text);
            match file {
                Ok(_) => Ok(text),
                Err(source) => Err(LoginError::Read { path: path.clone(), source }),
            }
        };
        match self {
            Self::Token(path) => token(&read(path)?).ok_or_else(|| LoginError::NoToken(path.clone())),
            Self::Password(path) => {
                password(&read(path)?).ok_or_else(|| LoginError::NoPassword(path.clone()))
            }
        }
    }
}

/// The one line of a file, with or without the end of it.
fn line(text: &Secret) -> Option<&str> {
    let line = text.reveal().trim_end_matches(['\r', '\n']);
    let fits = line.len() as u64 <= FILE_BYTES_MAX && !line.chars().any(char::is_control);
    fits.then_some(line)
}

fn token(text: &Secret) -> Option<Secret> {
    let token = line(text)?.trim();
    let is_one = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_one.then(|| Secret::new(format!("Bearer {token}")))
}

fn password(text: &Secret) -> Option<Secret> {
    let line = line(text)?;
    let (name, _) = line.split_once(':')?;
    (!name.is_empty()).then(|| Secret::new(format!("Basic {}", STANDARD.encode(line))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(login: impl Fn(PathBuf) -> PrometheusLogin, text: &[u8]) -> Result<String, LoginError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("login");
        std::fs::write(&file, text).unwrap();
        login(file).header().map(|header| header.reveal().to_owned())
    }

    #[test]
    fn p43_what_is_in_the_file_is_shown_as_it_should_be_and_what_is_none_is_refused_without_being_told() {
        use PrometheusLogin::{Password, Token};
        // As in RFC 7617, section 2.
        let basic = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        for text in ["Aladdin:open sesame", "Aladdin:open sesame\n", "Aladdin:open sesame\r\n"] {
            assert_eq!(header(Password, text.as_bytes()).unwrap(), basic, "{text:?}");
        }
        assert_eq!(header(Password, b"a:").unwrap(), "Basic YTo=");
        assert_eq!(header(Password, "a:\u{a3}".as_bytes()).unwrap(), "Basic YTrCow==");
        assert_eq!(header(Token, b"eyJ.x-_~+/=\n").unwrap(), "Bearer eyJ.x-_~+/=");
        let long = "x".repeat(FILE_BYTES_MAX as usize + 1);
        for (login, text) in [
            (Token as fn(PathBuf) -> PrometheusLogin, ""),
            (Token, "\n"),
            (Token, "hunter2 and more"),
            (Token, "hunter2\nX-More: 1"),
            (Token, "hunter2\u{e9}"),
            (Token, &long),
            (Password, ""),
            (Password, "hunter2"),
            (Password, ":hunter2"),
            (Password, "ada:hunter2\nand more"),
            (Password, &format!("a:{long}")),
        ] {
            let error = header(login, text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("for Prometheus") && !error.contains("hunter2"), "{text:?}: {error}");
        }
        let none = Token(PathBuf::from("/nowhere/token")).header().unwrap_err();
        assert!(none.to_string().contains("/nowhere/token"), "{none}");
        assert!(header(Token, b"\xff").is_err());
    }
}
