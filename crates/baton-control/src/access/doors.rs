//! The table of what there is to ask for, and who may: every route is entered here, and what is not cannot be reached.

use std::fmt;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use baton_core::access::Right;

/// What must be had to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing.
    Nothing,
    /// This right, for the service in the path.
    OfService(Right),
    /// This right. What is answered, or done, is limited to the caller's services behind the door.
    Limited(Right),
    /// This right. What is there belongs to no service: chunks are not parted by who has pushed them.
    OfAny(Right),
    /// This right, for every service.
    OfAll(Right),
}

/// What a request leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// Nothing: who asks wants to know something.
    Nothing,
    /// Bytes that nothing refers to yet. That is written down, and not waited for.
    Bytes,
    /// Something else than before.
    Change,
    /// The same, and it may stop harm, so that the last space on a full disk is there for it. Who can be asked for something else
    /// as well sees to it that there is room for that.
    Remedy,
}

impl Leaves {
    /// Whether something is changed.
    pub(crate) const fn changes(self) -> bool {
        match self {
            Self::Nothing | Self::Bytes => false,
            Self::Change | Self::Remedy => true,
        }
    }
}

/// One method of one path.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// The method.
    pub method: Method,
    /// The path, with its parameters in braces.
    pub path: String,
    /// What must be had to pass.
    pub needs: Needs,
    /// What a request leaves behind.
    pub leaves: Leaves,
    /// Whether a refusal is one line of text.
    pub in_lines: bool,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// All doors.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doors(Vec<Door>);

impl Doors {
    /// The door of a request; HEAD is a GET whose answer has no body.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Option<&Door> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.0.iter().find(|door| door.method == *method && door.path == path)
    }

    /// All of them.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Door> {
        self.0.iter()
    }

    /// Enters a door for what is no handler: a gRPC method.
    pub(crate) fn enter(&mut self, method: Method, path: String, needs: Needs, leaves: Leaves) {
        self.0.push(Door { method, path, needs, leaves, in_lines: false });
    }
}

/// Routes that are in the table of doors. There is no other way to make one.
pub(crate) struct Routes<S> {
    /// The routes so far.
    pub router: Router<S>,
    /// Their doors.
    pub doors: Doors,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { router: Router::new(), doors: Doors::default() }
    }

    /// A GET, which leaves nothing behind.
    pub(crate) fn get<T: 'static>(self, path: &str, needs: Needs, handler: impl Handler<T, S>) -> Self {
        self.add(Method::GET, path, needs, Leaves::Nothing, on(MethodFilter::GET, handler))
    }

    /// A POST that only asks for something, in a body that is too long for a query.
    pub(crate) fn ask<T: 'static>(self, path: &str, needs: Needs, handler: impl Handler<T, S>) -> Self {
        self.add(Method::POST, path, needs, Leaves::Nothing, on(MethodFilter::POST, handler))
    }

    /// A POST that changes something.
    pub(crate) fn post<T: 'static>(self, path: &str, needs: Needs, handler: impl Handler<T, S>) -> Self {
        self.add(Method::POST, path, needs, Leaves::Change, on(MethodFilter::POST, handler))
    }

    /// A POST that may stop harm.
    pub(crate) fn remedy<T: 'static>(self, path: &str, needs: Needs, handler: impl Handler<T, S>) -> Self {
        self.add(Method::POST, path, needs, Leaves::Remedy, on(MethodFilter::POST, handler))
    }

    /// A DELETE of what lets somebody in.
    pub(crate) fn revoke<T: 'static>(self, path: &str, needs: Needs, handler: impl Handler<T, S>) -> Self {
        self.add(Method::DELETE, path, needs, Leaves::Remedy, on(MethodFilter::DELETE, handler))
    }

    /// A PUT.
    pub(crate) fn put<T: 'static>(
        self,
        path: &str,
        needs: Needs,
        leaves: Leaves,
        handler: impl Handler<T, S>,
    ) -> Self {
        self.add(Method::PUT, path, needs, leaves, on(MethodFilter::PUT, handler))
    }

    /// A DELETE.
    pub(crate) fn delete<T: 'static>(self, path: &str, needs: Needs, handler: impl Handler<T, S>) -> Self {
        self.add(Method::DELETE, path, needs, Leaves::Change, on(MethodFilter::DELETE, handler))
    }

    fn add(
        mut self,
        method: Method,
        path: &str,
        needs: Needs,
        leaves: Leaves,
        route: MethodRouter<S>,
    ) -> Self {
        self.doors.enter(method, path.to_owned(), needs, leaves);
        self.router = self.router.route(path, route);
        self
    }

    /// The same; each is refused in one line of text.
    pub(crate) fn in_lines(mut self) -> Self {
        self.doors.0.iter_mut().for_each(|door| door.in_lines = true);
        self
    }

    /// The same, with something around each.
    pub(crate) fn around(self, wrap: impl FnOnce(Router<S>) -> Router<S>) -> Self {
        Self { router: wrap(self.router), doors: self.doors }
    }

    /// These and others.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.doors.0.extend(other.doors.0);
        Self { router: self.router.merge(other.router), doors: self.doors }
    }
}
