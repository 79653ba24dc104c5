//! `baton token`: who may do what.

use baton_core::access::{Role, Shown, TOKEN_BYTES};
use baton_core::ids::{ServiceName, TokenHash};
use baton_wire::access::{MadeToken, MakeToken, TokenView};
use serde::Serialize;

use crate::args::{TokenCreate, TokenJoin, TokenRevoke};
use crate::context::Context;
use crate::failure::Failure;
use crate::moment::now_ms;
use crate::render::access;

/// A token as whoever asked for it gets it, once.
#[derive(Serialize)]
struct Given {
    /// What is shown to control.
    token: String,
    /// What control knows of it.
    #[serde(flatten)]
    known: TokenView,
}

/// Makes a token for somebody.
pub fn create(args: TokenCreate, context: &Context) -> Result<(), Failure> {
    let services = Some(args.services).filter(|services| !services.is_empty());
    let asked = MakeToken {
        hash: String::new(),
        holder: args.holder.to_string(),
        role: args.role.to_string(),
        services: services.map(|services| services.iter().map(ServiceName::to_string).collect()),
        ttl_ms: args.ttl.map(|ttl| ttl.0),
        member: None,
        reusable: false,
    };
    make(asked, context)
}

/// Makes a token that makes a member.
pub fn join(args: TokenJoin, context: &Context) -> Result<(), Failure> {
    let service = context.service(args.service)?;
    let holder = args.member.as_ref().map_or_else(|| service.to_string(), ToString::to_string);
    let asked = MakeToken {
        hash: String::new(),
        holder,
        role: Role::Join.to_string(),
        services: Some(vec![service.to_string()]),
        ttl_ms: Some(args.ttl.0),
        member: args.member.map(|member| member.to_string()),
        reusable: args.reusable,
    };
    make(asked, context)
}

/// Draws the secret here, so that it never travels in a body, and a request that is sent twice makes one token.
fn make(asked: MakeToken, context: &Context) -> Result<(), Failure> {
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(|error| Failure::System {
        what: "draw random numbers",
        source: std::io::Error::other(error),
    })?;
    let asked = MakeToken { hash: TokenHash::of(&random).to_string(), ..asked };
    let MadeToken { token: known, fingerprint } = context.client.make_token(&asked)?;
    let fingerprint = fingerprint.and_then(|fingerprint| fingerprint.parse().ok());
    let token = Shown::token(&random, fingerprint).to_secret().reveal().to_owned();
    // The token alone, so that it can go into a file.
    context.ui.result(&Given { token, known }, |given| format!("{}\n", given.token))
}

/// Shows who has which tokens.
pub fn list(context: &Context) -> Result<(), Failure> {
    let tokens = context.client.tokens()?;
    context.ui.result(&tokens, |tokens| access::tokens(tokens, now_ms(), context.ui.width))
}

/// Makes a token, or what a member has, worth nothing.
pub fn revoke(args: TokenRevoke, context: &Context) -> Result<(), Failure> {
    match (args.member, args.id) {
        (Some(member), _) => {
            let service = context.service(args.service)?;
            context.client.revoke_member(&service, &member)?;
            let known = serde_json::json!({ "service": service.as_str(), "member": member.as_str() });
            context.ui.result(&known, |_| {
                format!(
                    "what member {member} of {service} has is worth nothing any more: it needs a new token\n"
                )
            })
        }
        (None, Some(id)) => {
            let gone = context.client.revoke_token(&id.to_string())?;
            context.ui.result(&gone, access::revoked)
        }
        (None, None) => Err(Failure::Usage("name a token, or a member with --member".to_owned())),
    }
}
