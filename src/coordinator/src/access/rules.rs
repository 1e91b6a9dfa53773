use std::collections::BTreeSet;
use std::convert::Infallible;
use std::str::FromStr;

use palisade_token::ResourceName;
use serde::{Deserialize, Serialize};

use super::{AccessError, Prefix};
use crate::domain::Principal;

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Verb {
    /// Acquire, and release what is one's own; with any resource, open sessions.
    Acquire,
    /// Get, list, watch and check.
    Read,
    /// Revoke; with every resource, also advance the generation, drain, and see the status.
    Admin,
}

impl Verb {
    /// As rules have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Who {
    /// Every principal, the anonymous one too; written `*`.
    Everybody,
    /// One principal, by its whole name.
    One(Principal),
}

impl Who {
    fn is(&self, principal: &Principal) -> bool {
        match self {
            Self::Everybody => true,
            Self::One(named) => named == principal,
        }
    }
}

impl From<String> for Who {
    fn from(text: String) -> Self {
        if text == "*" {
            Self::Everybody
        } else {
            Self::One(Principal::named(text))
        }
    }
}

impl FromStr for Who {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::from(text.to_owned()))
    }
}

impl From<Who> for String {
    fn from(who: Who) -> Self {
        match who {
            Who::Everybody => "*".to_owned(),
            Who::One(principal) => principal.name().to_owned(),
        }
    }
}

/// One thing that is allowed. Several add up; none takes away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Who.
    pub principal: Who,
    /// With which resources.
    pub prefix: Prefix,
    /// May do what.
    pub verbs: Vec<Verb>,
}

/// Rules that cannot be used: change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// More rules than are kept.
    #[error("{given} rules are too many; at most {} are kept", Rules::MAX)]
    TooMany {
        /// How many there are.
        given: usize,
    },
    /// A list reads the store once for each of a principal's prefixes.
    #[error(
        "more than {} prefixes for one principal and verb; give it one that covers more",
        Rules::MAX_PREFIXES
    )]
    TooManyPrefixes,
    /// A rule that allows nothing is a slip.
    #[error("rule {number} has no verb")]
    NoVerb {
        /// Which rule, counted from 1.
        number: usize,
    },
    /// Nobody is called that.
    #[error("rule {number} has a principal that nobody can be: write a name, or * for everybody")]
    NoPrincipal {
        /// Which rule, counted from 1.
        number: usize,
    },
}

/// All rules. Without any, everything is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// As many as are looked through with every call.
    pub const MAX: usize = 1_000;
    /// So many prefixes one principal may have with one verb.
    pub const MAX_PREFIXES: usize = 64;

    /// Takes rules.
    ///
    /// # Errors
    /// A [`RulesError`] that names the first rule that cannot be used.
    pub fn new(rules: Vec<Rule>) -> Result<Self, RulesError> {
        if rules.len() > Self::MAX {
            return Err(RulesError::TooMany { given: rules.len() });
        }
        for (index, rule) in rules.iter().enumerate() {
            let number = index + 1;
            if rule.verbs.is_empty() {
                return Err(RulesError::NoVerb { number });
            }
            if matches!(&rule.principal, Who::One(one) if !one.is_nameable()) {
                return Err(RulesError::NoPrincipal { number });
            }
        }
        let all = Self(rules);
        for rule in &all.0 {
            let principal = match &rule.principal {
                Who::Everybody => &Principal::anonymous(),
                Who::One(principal) => principal,
            };
            for verb in &rule.verbs {
                if all.prefixes(principal, *verb).len() > Self::MAX_PREFIXES {
                    return Err(RulesError::TooManyPrefixes);
                }
            }
        }
        Ok(all)
    }

    /// As they were given.
    #[must_use]
    pub fn all(&self) -> &[Rule] {
        &self.0
    }

    /// Whether some rule is about a principal by its name.
    pub(crate) fn name_anybody(&self) -> bool {
        let by_name = |rule: &Rule| matches!(rule.principal, Who::One(_));
        self.0.iter().any(by_name)
    }

    fn of<'a>(&'a self, principal: &'a Principal, verb: Verb) -> impl Iterator<Item = &'a Prefix> {
        let applies =
            move |rule: &&Rule| rule.verbs.contains(&verb) && rule.principal.is(principal);
        self.0.iter().filter(applies).map(|rule| &rule.prefix)
    }

    /// The prefixes of a principal in order, without those that others cover.
    fn prefixes(&self, principal: &Principal, verb: Verb) -> Vec<Prefix> {
        let all: BTreeSet<&Prefix> = self.of(principal, verb).collect();
        let covered = |one: &Prefix| all.iter().any(|by| *by != one && by.covers_all_of(one));
        let kept = all.iter().filter(|one| !covered(one));
        kept.map(|one| Prefix::clone(one)).collect()
    }

    pub(super) fn check(
        &self,
        principal: &Principal,
        verb: Verb,
        resource: &ResourceName,
    ) -> Result<(), AccessError> {
        self.decide(verb, || {
            self.of(principal, verb)
                .any(|prefix| prefix.covers(resource))
        })
    }

    pub(super) fn check_all(&self, principal: &Principal, verb: Verb) -> Result<(), AccessError> {
        self.decide(verb, || self.of(principal, verb).any(Prefix::is_everything))
    }

    fn decide(&self, verb: Verb, allows: impl FnOnce() -> bool) -> Result<(), AccessError> {
        if self.0.is_empty() || allows() {
            return Ok(());
        }
        Err(AccessError::Denied { verb })
    }

    pub(super) fn scope(
        &self,
        principal: &Principal,
        verb: Verb,
        beginning: &str,
    ) -> Result<Scope, AccessError> {
        let prefixes = if self.0.is_empty() {
            vec![Prefix::default()]
        } else {
            self.prefixes(principal, verb)
        };
        let scope = Scope {
            spans: spans(&prefixes, beginning),
        };
        if scope.spans.is_empty() {
            return Err(AccessError::Denied { verb });
        }
        Ok(scope)
    }
}

/// Resources whose names lie together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// All whose names begin so.
    Beginning(String),
    /// One.
    One(ResourceName),
}

impl Span {
    pub(super) fn has(&self, resource: &ResourceName) -> bool {
        match self {
            Self::Beginning(text) => resource.as_str().starts_with(text),
            Self::One(one) => one == resource,
        }
    }

    /// What all its names begin with.
    pub(crate) fn beginning(&self) -> &str {
        match self {
            Self::Beginning(text) => text,
            Self::One(one) => one.as_str(),
        }
    }

    /// Whether all its names come before or are this one.
    pub(crate) fn is_over_at(&self, name: &ResourceName) -> bool {
        match self {
            Self::Beginning(text) => {
                !name.as_str().starts_with(text) && text.as_str() < name.as_str()
            }
            Self::One(one) => one <= name,
        }
    }
}

/// Which resources of a list or a watch its caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    spans: Vec<Span>,
}

impl Scope {
    /// Whether the caller may see this one.
    #[must_use]
    pub fn allows(&self, resource: &ResourceName) -> bool {
        self.spans.iter().any(|span| span.has(resource))
    }

    /// The spans in the order of their names; none overlaps another, so a list that goes through them meets
    /// nothing that the caller may not see.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }
}

/// What of the prefixes, none of which covers another, begins with a text.
fn spans(prefixes: &[Prefix], beginning: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut add_below = |below: String| {
        if beginning.starts_with(&below) {
            spans.push(Span::Beginning(beginning.to_owned()));
        } else if below.starts_with(beginning) {
            spans.push(Span::Beginning(below));
        }
    };
    let mut ones = Vec::new();
    for prefix in prefixes {
        let text = prefix.as_str();
        if text.is_empty() || text.ends_with('/') {
            add_below(text.to_owned());
            continue;
        }
        add_below(format!("{text}/"));
        // Beside it lie names such as `a/b-c`, so it is not looked for by its beginning.
        ones.extend(ResourceName::new(text).ok());
    }
    let named = ones
        .into_iter()
        .filter(|one| one.as_str().starts_with(beginning));
    spans.extend(named.map(Span::One));
    spans.sort_by(|one, other| one.beginning().cmp(other.beginning()));
    spans
}
