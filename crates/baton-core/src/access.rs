//! Who may do what with control, and how they show who they are.
//!
//! Whoever shows nothing may do nothing. People and programs show a [`Token`]; members show a [`Credential`], which they got for
//! a token that was good for nothing else and only once. What each may do is one table: [`Role::may`].

mod allowed;
mod audit;
mod credential;
mod rate;
mod role;
mod token;

pub use allowed::{ALLOWED_SECRETS_BYTES_MAX, AllowedLine, AllowedSecrets, NotAllowed};
pub use audit::{Broken, Chain, Head, Record};
pub use credential::{BadCredential, Credential, CredentialKey, Standing};
pub use rate::{Bucket, Rate};
pub use role::{NoRole, Right, Role, Scope};
pub use token::{BadToken, Fingerprint, Shown, TOKEN_BYTES, Token};
