use http::{Extensions, HeaderMap, HeaderValue};
use palisade_token::ResourceName;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

fn rule(principal: &str, prefix: &str, verbs: &[Verb]) -> Rule {
    Rule {
        principal: principal.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        verbs: verbs.to_vec(),
    }
}

fn access(rules: &[(&str, &str, &[Verb])]) -> Access {
    let rules = rules
        .iter()
        .map(|(who, prefix, verbs)| rule(who, prefix, verbs));
    Access::open().with_rules(Rules::new(rules.collect()).unwrap())
}

#[test]
fn a_prefix_covers_whole_segments() {
    for (prefix, covered, not_covered) in [
        ("", vec!["a", "a/b", "z.z"], vec![]),
        (
            "a/b",
            vec!["a/b", "a/b/c", "a/b/c/d"],
            vec!["a", "a/bc", "a/b-c", "a/b.c", "a/b:c", "b/a/b", "a/B"],
        ),
        ("a/b/", vec!["a/b/c", "a/b/c/d"], vec!["a", "a/b", "a/bc"]),
        ("a", vec!["a", "a/a"], vec!["aa", "a.", "b"]),
    ] {
        let parsed: Prefix = prefix.parse().unwrap();
        assert_eq!(parsed.as_str(), prefix);
        for inside in covered {
            assert!(parsed.covers(&name(inside)), "{prefix:?} covers {inside}");
        }
        for outside in not_covered {
            assert!(
                !parsed.covers(&name(outside)),
                "{prefix:?} covers {outside}"
            );
        }
    }
    for bad in [
        "/", "/a", "a//", "a//b", "a/../b", "a/*", "a b", ".", "a/./",
    ] {
        assert!(bad.parse::<Prefix>().is_err(), "{bad:?}");
    }
}

#[test]
fn without_rules_all_is_allowed_and_with_one_only_what_rules_say() {
    let alice = Principal::named("alice");
    for verb in [Verb::Acquire, Verb::Read, Verb::Admin] {
        let open = Access::open();
        assert_eq!(open.check(&alice, verb, &name("a")), Ok(()));
        assert_eq!(open.check_all(&alice, verb), Ok(()));
        assert_eq!(open.check_any(&alice, verb), Ok(()));
        let other = access(&[("bob", "", &[Verb::Acquire, Verb::Read, Verb::Admin])]);
        let denied = Err(AccessError::Denied { verb });
        assert_eq!(other.check(&alice, verb, &name("a")), denied);
        assert_eq!(other.check_all(&alice, verb), denied);
        assert_eq!(other.check_any(&alice, verb), denied);
        assert!(other.scope(&alice, verb, "").is_err());
    }
}

#[test]
fn rules_add_up_and_a_verb_implies_no_other() {
    let access = access(&[
        ("alice", "a", &[Verb::Acquire]),
        ("alice", "b/c", &[Verb::Read, Verb::Admin]),
        ("*", "public/", &[Verb::Read]),
    ]);
    let may = |who: &str, verb, what: &str| {
        access
            .check(&Principal::named(who), verb, &name(what))
            .is_ok()
    };
    assert!(may("alice", Verb::Acquire, "a/x"));
    assert!(!may("alice", Verb::Read, "a/x"));
    assert!(!may("alice", Verb::Acquire, "b/c"));
    assert!(may("alice", Verb::Admin, "b/c"));
    assert!(may("alice", Verb::Read, "public/x"));
    assert!(may("", Verb::Read, "public/x"));
    assert!(!may("", Verb::Read, "public"));
    assert!(!may("Alice", Verb::Acquire, "a/x"));
    let alice = Principal::named("alice");
    assert!(access.check_any(&alice, Verb::Acquire).is_ok());
    assert!(access.check_all(&alice, Verb::Admin).is_err());
}

#[test]
fn rules_that_cannot_be_meant_are_refused() {
    let no_verb = Rules::new(vec![rule("*", "", &[Verb::Read]), rule("a", "", &[])]);
    assert_eq!(no_verb, Err(RulesError::NoVerb { number: 2 }));
    let nobody = Rules::new(vec![rule("", "", &[Verb::Read])]);
    assert_eq!(nobody, Err(RulesError::NoPrincipal { number: 1 }));
    let many = (0..=Rules::MAX_PREFIXES).map(|i| rule("a", &format!("r{i}"), &[Verb::Read]));
    assert_eq!(Rules::new(many.collect()), Err(RulesError::TooManyPrefixes));
    let same = vec![rule("*", "", &[Verb::Read]); Rules::MAX + 1];
    assert!(matches!(Rules::new(same), Err(RulesError::TooMany { .. })));
}

#[test]
fn the_spans_of_a_list_are_in_order_and_have_each_name_once() {
    let access = access(&[
        ("alice", "a/b", &[Verb::Read]),
        ("alice", "a/b/c", &[Verb::Read]),
        ("alice", "a/b-c", &[Verb::Read]),
        ("alice", "z/", &[Verb::Read]),
    ]);
    let spans = |beginning: &str| {
        let scope = access.scope(&Principal::named("alice"), Verb::Read, beginning);
        scope.map(|scope| scope.spans().to_vec())
    };
    let (one, below) = (
        |text: &str| Span::One(name(text)),
        |text: &str| Span::Beginning(text.to_owned()),
    );
    let a = [one("a/b"), one("a/b-c"), below("a/b-c/"), below("a/b/")];
    assert_eq!(spans("a").unwrap(), a);
    assert_eq!(spans("").unwrap()[4..], [below("z/")]);
    assert_eq!(spans("z/y").unwrap(), [below("z/y")]);
    assert_eq!(spans("a/b/c").unwrap(), [below("a/b/c")]);
    assert!(spans("q").is_err());
    assert!(spans("a/bb").is_err());
}

fn segment() -> impl Strategy<Value = String> {
    "[ab]{1,2}[-.]?[a]?".prop_filter("dots", |text| text != "." && text != "..")
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(segment(), 1..4).prop_map(|segments| segments.join("/"))
}

fn prefix_text() -> impl Strategy<Value = String> {
    (path(), any::<bool>(), 0..10_u8).prop_map(|(path, slash, everything)| {
        match (slash, everything) {
            (_, 0) => String::new(),
            (true, _) => format!("{path}/"),
            (false, _) => path,
        }
    })
}

/// What the words say, segment by segment.
fn covers_by_segments(prefix: &str, resource: &str) -> bool {
    if prefix.is_empty() {
        return true;
    }
    let below_only = prefix.ends_with('/');
    let wanted: Vec<_> = prefix.trim_end_matches('/').split('/').collect();
    let given: Vec<_> = resource.split('/').collect();
    given.starts_with(&wanted) && (!below_only || given.len() > wanted.len())
}

proptest! {
    #[test]
    fn a_prefix_covers_by_segments_alone(prefix in prefix_text(), resource in path()) {
        let parsed: Prefix = prefix.parse().unwrap();
        let by_segments = covers_by_segments(&prefix, &resource);
        prop_assert_eq!(parsed.covers(&name(&resource)), by_segments);
    }

    #[test]
    fn a_scope_has_what_a_check_allows(
        prefixes in prop::collection::vec(prefix_text(), 1..6),
        beginning in prop_oneof![Just(String::new()), "[ab]{1,2}[-/]?[ab]?"],
        resources in prop::collection::vec(path(), 1..20),
        after in path(),
    ) {
        let rules = prefixes.iter().map(|prefix| rule("*", prefix, &[Verb::Read]));
        let access = Access::open().with_rules(Rules::new(rules.collect()).unwrap());
        let nobody = Principal::anonymous();
        let scope = access.scope(&nobody, Verb::Read, &beginning);
        for resource in &resources {
            let resource = name(resource);
            let allowed = access.check(&nobody, Verb::Read, &resource).is_ok()
                && resource.as_str().starts_with(&beginning);
            let (listed, spans) = match &scope {
                Ok(scope) => {
                    let has = |span: &&Span| span.has(&resource);
                    (scope.allows(&resource), scope.spans().iter().filter(has).collect())
                }
                Err(_) => (false, Vec::new()),
            };
            prop_assert_eq!(listed, allowed, "{} of {:?}", resource, prefixes);
            prop_assert_eq!(spans.len(), usize::from(allowed));
            // Nothing that comes after a name is in a span that is over at it.
            let after = name(&after);
            if spans.iter().any(|span| span.is_over_at(&after)) {
                prop_assert!(resource <= after);
            }
        }
    }
}

fn tokens(entries: &[(&str, &str)]) -> Tokens {
    let lines = entries.iter().map(|(principal, token)| {
        let hash = hex::encode(Sha256::digest(token));
        format!("[[token]]\nprincipal = {principal:?}\nsha256 = \"{hash}\"\n")
    });
    Tokens::parse(&lines.collect::<String>()).unwrap()
}

fn sent(values: &[&'static str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append("authorization", HeaderValue::from_static(value));
    }
    headers
}

fn certified(principal: Option<&str>) -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert(Peer {
        address: None,
        principal: principal.map(Principal::named),
    });
    extensions
}

#[test]
fn nobody_is_asked_where_nothing_is_configured() {
    let anonymous = Ok(Principal::anonymous());
    for headers in [sent(&[]), sent(&["Bearer x"]), sent(&["Basic eA=="])] {
        let who = Access::open().authenticate(&headers, &certified(Some("alice")));
        assert_eq!(who, anonymous);
    }
}

#[test]
fn a_token_says_who_calls_and_a_bad_one_is_refused_whatever_the_certificate_says() {
    let access = Access::open()
        .with_tokens(tokens(&[
            ("alice", "one"),
            ("alice", "two"),
            ("bob", "three"),
        ]))
        .with_certificates();
    let who = |headers, certificate| access.authenticate(&headers, &certified(certificate)).ok();
    let alice = Some(Principal::named("alice"));
    assert_eq!(who(sent(&["Bearer one"]), None), alice);
    assert_eq!(who(sent(&["bearer  two "]), Some("carol")), alice);
    assert_eq!(
        who(sent(&[]), Some("carol")),
        Some(Principal::named("carol"))
    );
    for bad in [
        &[][..],
        &["Bearer"],
        &["Bearer "],
        &["Bearer four"],
        &["Bearer on"],
        &["Basic one"],
        &["one"],
        &["Bearer one", "Bearer one"],
    ] {
        assert_eq!(who(sent(bad), None), None, "{bad:?}");
        if !bad.is_empty() {
            assert_eq!(who(sent(bad), Some("carol")), None, "{bad:?}");
        }
    }
}

#[test]
fn other_tokens_count_in_every_clone_at_once() {
    let access = Access::open().with_tokens(tokens(&[("alice", "old")]));
    let clone = access.clone();
    access.replace_tokens(tokens(&[("alice", "new")]));
    let nobody = Extensions::new();
    assert!(clone.authenticate(&sent(&["Bearer new"]), &nobody).is_ok());
    assert!(clone.authenticate(&sent(&["Bearer old"]), &nobody).is_err());
    access.replace_tokens(Tokens::default());
    assert!(clone.authenticate(&sent(&["Bearer new"]), &nobody).is_err());
    assert!(clone.authenticate(&sent(&[]), &nobody).is_err());
}

#[test]
fn a_bad_file_of_tokens_is_refused_without_being_quoted() {
    let hash = hex::encode(Sha256::digest("x"));
    let entry = |principal: &str, hash: &str| {
        format!("[[token]]\nprincipal = {principal:?}\nsha256 = \"{hash}\"\n")
    };
    for (text, said) in [
        ("[[token]]\nsecret = 1\n".to_owned(), "line"),
        (
            format!("{}oops = true\n", entry("a", &hash)),
            "line 4, column 1",
        ),
        (entry("a", "hunter2"), "token 1"),
        (entry("", &hash), "token 1"),
        (entry("*", &hash), "token 1"),
        (entry("a\u{7}", &hash), "line 2"),
        (entry("a", &hash) + &entry("b", &hash), "token 2"),
    ] {
        let error = Tokens::parse(&text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
        assert!(
            !error.contains("hunter2") && !error.contains(&hash),
            "{error}"
        );
    }
    assert_eq!(Tokens::parse("").unwrap().count(), 0);
    let twice = Tokens::parse(&(entry("a", &hash) + &entry("a", &hash))).unwrap();
    assert_eq!(twice.principal("x"), Some(Principal::named("a")));
    assert!(!format!("{twice:?}").contains(&hash));
}
