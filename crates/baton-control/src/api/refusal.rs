//! Why something is not done: a status, a word and a sentence.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use baton_core::access::NotAllowed;
use baton_core::history::{InvalidTag, ProposeError};
use baton_core::ids::InvalidId;
use baton_core::release::TextError;
use baton_store::state::{Kind, StateError};
use baton_wire::api::{BadPolicy, Refused};

use crate::audit::{Code, Effect, Note};
use crate::chain::chain;
use crate::proposal::NoRandomness;

/// The code of what is so already.
pub(super) const NOTHING_TO_DO: &str = "nothing-to-do";

/// A refusal.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    /// What was changed all the same; mostly nothing.
    changed: Option<Note>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), changed: None }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", message)
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    pub(crate) fn stopping() -> Self {
        Self::unavailable("the server is stopping: try again")
    }

    /// The same, of a call that has changed something all the same, for the audit log.
    pub(crate) fn after(self, changed: Note) -> Self {
        Self { changed: Some(changed), ..self }
    }

    /// The same, with what follows from it.
    pub(crate) fn and(mut self, then: &str) -> Self {
        self.message = format!("{}; {then}", self.message);
        self
    }

    /// The code and status of a proposal that is refused. Only somebody who was faster is a conflict.
    fn of_proposal(error: &ProposeError, message: String) -> Self {
        let (status, code) = match error {
            ProposeError::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
            ProposeError::Policy(_) => (StatusCode::BAD_REQUEST, "invalid"),
            // What was signed was true a moment ago: whoever looks and signs again gets through.
            ProposeError::OtherWarrant { .. } => (StatusCode::CONFLICT, "other-warrant"),
            ProposeError::Unsigned => (StatusCode::UNPROCESSABLE_ENTITY, "unsigned"),
            ProposeError::Marked { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "marked"),
            ProposeError::NoSuchTag { .. } => (StatusCode::NOT_FOUND, "not-found"),
            ProposeError::Locked { .. } => (StatusCode::LOCKED, "locked"),
            ProposeError::NothingToHalt
            | ProposeError::NothingToAbort
            | ProposeError::NotLocked
            | ProposeError::TooManyTags
            | ProposeError::HaltedAlready { .. }
            | ProposeError::NothingToResume
            | ProposeError::NothingToRollBack => (StatusCode::UNPROCESSABLE_ENTITY, NOTHING_TO_DO),
            ProposeError::NoFallback { .. } | ProposeError::NeverSwitched { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "no-way-back")
            }
        };
        Self::new(status, code, message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Refused { code: self.code.to_owned(), message: self.message };
        let mut response = (self.status, Json(body)).into_response();
        response.extensions_mut().insert(Code(self.code));
        if let Some(note) = self.changed {
            response.extensions_mut().insert(note);
            response.extensions_mut().insert(Effect::Changed);
        }
        response
    }
}

impl From<&ProposeError> for Refusal {
    fn from(error: &ProposeError) -> Self {
        Self::of_proposal(error, chain(error))
    }
}

impl From<StateError> for Refusal {
    fn from(error: StateError) -> Self {
        let message = chain(&error);
        if let StateError::Refused { source, .. } = &error {
            return Self::of_proposal(source, message);
        }
        match error.kind() {
            Kind::Missing => Self::not_found(message),
            Kind::Conflict => Self::new(StatusCode::CONFLICT, "conflict", message),
            // What is denied here is an idempotency key that was used for something else.
            Kind::Denied => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "key-taken", message),
            Kind::Unavailable | Kind::Storage | Kind::Corrupt => Self::unavailable(message),
        }
    }
}

macro_rules! invalid {
    ($($error:ty),*) => {
        $(impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                Self::invalid(chain(&error))
            }
        })*
    };
}
invalid!(InvalidId, InvalidTag, BadPolicy, TextError);

macro_rules! rejected {
    ($($error:ty),*) => {
        $(impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                // The status tells what is wrong with the form; 422 is for what is said in it.
                let status = match error.status() {
                    StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
                    status => status,
                };
                Self::new(status, "invalid", error.body_text())
            }
        })*
    };
}
rejected!(JsonRejection, PathRejection, QueryRejection);

impl From<NotAllowed> for Refusal {
    fn from(error: NotAllowed) -> Self {
        Self::new(StatusCode::FORBIDDEN, "secret-not-allowed", chain(&error))
    }
}

impl From<NoRandomness> for Refusal {
    fn from(error: NoRandomness) -> Self {
        Self::unavailable(chain(&error))
    }
}
