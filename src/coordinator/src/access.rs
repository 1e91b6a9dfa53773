//! Who calls, and what each may do: principals from certificates and bearer tokens, and rules of
//! principal × resource prefix × verb.
//!
//! Where neither certificates nor tokens are asked for, everybody is [`Principal::anonymous`]; where no rule is
//! configured, every principal may do everything. With one rule, what no rule allows is refused.

mod prefix;
mod rules;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::extract::ConnectInfo;
use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};
use palisade_token::ResourceName;

pub use self::prefix::{Prefix, PrefixError};
pub use self::rules::{Rule, Rules, RulesError, Scope, Span, Verb, Who};
pub use self::tokens::{TokenFileError, Tokens};
use crate::domain::Principal;

/// Why a call is not let in. Neither says more than the caller knows anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// There are no credentials, or not good ones: send others.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// No rule lets the caller do this: an operator has to.
    #[error("the caller may not {} here", verb.name())]
    Denied {
        /// What it wanted to do.
        verb: Verb,
    },
}

/// Who is at the other end of a connection. It is among the extensions of every request, as it is or in
/// axum's `ConnectInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// Where it calls from.
    pub address: Option<SocketAddr>,
    /// Who its verified certificate says it is: the first URI among the alternative names, else the first
    /// DNS name.
    pub principal: Option<Principal>,
}

/// What lets callers in. A clone is the same.
///
/// Each call asks twice: [`authenticate`](Self::authenticate) first, before anything that was sent is looked at,
/// then [`check`](Self::check), once the resource's name is known and before the store is asked.
///
/// ```
/// use palisade_coordinator::access::{Access, Prefix, Rule, Rules, Verb, Who};
/// use palisade_coordinator::domain::Principal;
///
/// let rule = Rule {
///     principal: "importer".parse()?,
///     prefix: "orders".parse()?,
///     verbs: vec![Verb::Acquire],
/// };
/// let access = Access::open().with_rules(Rules::new(vec![rule])?);
/// let importer = Principal::named("importer");
/// let (inside, beside) = ("orders/eu".parse()?, "orders-old/eu".parse()?);
/// assert!(access.check(&importer, Verb::Acquire, &inside).is_ok());
/// assert!(access.check(&importer, Verb::Acquire, &beside).is_err());
/// assert!(access.check(&importer, Verb::Admin, &inside).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Access {
    rules: Arc<Rules>,
    tokens: Arc<ArcSwapOption<Tokens>>,
    by_certificate: bool,
}

impl Access {
    /// Everybody is anonymous and may do everything.
    #[must_use]
    pub fn open() -> Self {
        Self::default()
    }

    /// The same, with rules.
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Self {
        self.rules = Arc::new(rules);
        self
    }

    /// The same, for callers whose certificates are verified by the transport.
    #[must_use]
    pub fn with_certificates(mut self) -> Self {
        self.by_certificate = true;
        self
    }

    /// The same, for callers that show bearer tokens.
    #[must_use]
    pub fn with_tokens(self, tokens: Tokens) -> Self {
        self.replace_tokens(tokens);
        self
    }

    /// Takes other tokens from now on, in every clone. Streams that are open stay open.
    pub fn replace_tokens(&self, tokens: Tokens) {
        self.tokens.store(Some(Arc::new(tokens)));
    }

    /// Whether anybody is asked for credentials.
    #[must_use]
    pub fn asks(&self) -> bool {
        self.by_certificate || self.tokens.load().is_some()
    }

    /// Who sends a request: its bearer token's principal, else its certificate's. A token that is no good is
    /// refused, whatever the certificate says. Where nobody is asked, it is anonymous and `authorization`
    /// is not looked at.
    ///
    /// # Errors
    /// [`AccessError::Unauthenticated`].
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Principal, AccessError> {
        if !self.asks() {
            return Ok(Principal::anonymous());
        }
        if let Some(token) = bearer(headers)? {
            let tokens = self.tokens.load();
            let known = tokens.as_ref().and_then(|tokens| tokens.principal(token));
            return known.ok_or(AccessError::Unauthenticated(
                "the bearer token is not known",
            ));
        }
        let certified = peer(extensions).and_then(|peer| peer.principal.clone());
        certified.ok_or(AccessError::Unauthenticated(
            "credentials are missing: show a bearer token or a client certificate with a name",
        ))
    }

    /// Whether the principal may do this with this resource.
    ///
    /// # Errors
    /// [`AccessError::Denied`].
    pub fn check(
        &self,
        principal: &Principal,
        verb: Verb,
        resource: &ResourceName,
    ) -> Result<(), AccessError> {
        self.rules.check(principal, verb, resource)
    }

    /// Whether there is any resource that the principal may do this with: for opening a session.
    ///
    /// # Errors
    /// [`AccessError::Denied`].
    pub fn check_any(&self, principal: &Principal, verb: Verb) -> Result<(), AccessError> {
        self.rules.scope(principal, verb, "").map(drop)
    }

    /// Whether the principal may do this with every resource: for what concerns the whole coordinator, as
    /// generations, status and draining do.
    ///
    /// # Errors
    /// [`AccessError::Denied`].
    pub fn check_all(&self, principal: &Principal, verb: Verb) -> Result<(), AccessError> {
        self.rules.check_all(principal, verb)
    }

    /// Which of the resources whose names begin with `beginning` the principal may do this with: for lists and
    /// watches, which leave out the others. `beginning` is that of a list: `a/b` is one of `a/bc`, too.
    ///
    /// # Errors
    /// [`AccessError::Denied`] where there could be none.
    pub fn scope(
        &self,
        principal: &Principal,
        verb: Verb,
        beginning: &str,
    ) -> Result<Scope, AccessError> {
        self.rules.scope(principal, verb, beginning)
    }
}

/// The peer of a request, however it came.
fn peer(extensions: &Extensions) -> Option<&Peer> {
    extensions.get::<Peer>().or_else(|| {
        let told = extensions.get::<ConnectInfo<Peer>>();
        told.map(|ConnectInfo(peer)| peer)
    })
}

/// The bearer token that was sent, if any credentials were.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, AccessError> {
    const BAD: AccessError =
        AccessError::Unauthenticated("authorization must be one header: Bearer TOKEN");
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = sent.next() else {
        return Ok(None);
    };
    if sent.next().is_some() {
        return Err(BAD);
    }
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .ok_or(BAD)?;
    let token = token.trim_matches(' ');
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(BAD);
    }
    Ok(Some(token))
}

#[cfg(test)]
mod tests;
