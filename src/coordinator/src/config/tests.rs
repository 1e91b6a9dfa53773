use std::time::Duration;

use super::{Document, DocumentError, EtcdAccess, Settings, StoreChoice};

fn etcd(url: &str, change: impl FnOnce(&mut EtcdAccess)) -> StoreChoice {
    let mut access = EtcdAccess::default();
    change(&mut access);
    StoreChoice::Etcd {
        endpoints: vec![url.to_owned()],
        prefix: StoreChoice::DEFAULT_PREFIX.to_owned(),
        access,
    }
}

#[test]
fn every_bound_is_named() {
    type Spoil = fn(&mut Settings);
    let rows: [(Spoil, &str); 12] = [
        (|s| s.limits.min_ttl = Duration::ZERO, "limits.min_ttl"),
        (
            |s| s.limits.max_ttl = Duration::from_millis(1),
            "limits.max_ttl",
        ),
        (
            |s| s.limits.default_ttl = Duration::from_secs(301),
            "limits.default_ttl",
        ),
        (|s| s.limits.max_wait = Duration::MAX, "limits.max_wait"),
        (
            |s| s.limits.max_message_bytes = 1,
            "limits.max_message_bytes",
        ),
        (
            |s| s.timeouts.default_call = Duration::from_secs(61),
            "timeouts.default_call",
        ),
        (|s| s.timeouts.sweep = Duration::ZERO, "timeouts.sweep"),
        (
            |s| s.timeouts.drain_notice = Duration::from_secs(11),
            "timeouts.drain_notice",
        ),
        (
            |s| {
                s.store = StoreChoice::Etcd {
                    endpoints: vec!["localhost".to_owned()],
                    prefix: "palisade/".to_owned(),
                    access: EtcdAccess::default(),
                };
            },
            "store.etcd",
        ),
        (
            |s| s.store = etcd("http://a:1", |access| access.ca_file = Some("a".into())),
            "store.etcd",
        ),
        (
            |s| s.store = etcd("https://a:1", |access| access.key_file = Some("a".into())),
            "store.etcd_cert_file",
        ),
        (
            |s| s.store = etcd("https://a:1", |access| access.user = Some("a".to_owned())),
            "store.etcd_user",
        ),
    ];
    for (spoil, setting) in rows {
        let mut settings = Settings::local(StoreChoice::Memory);
        assert_eq!(settings.validate(), Ok(()));
        spoil(&mut settings);
        assert_eq!(settings.validate().unwrap_err().setting, setting);
    }
}

#[test]
fn one_address_does_not_serve_both() {
    let mut settings = Settings::local(StoreChoice::Memory);
    settings.listen.set_port(7070);
    settings.http = settings.listen;
    assert_eq!(settings.validate().unwrap_err().setting, "http");
}

const EXAMPLE: &str = include_str!("../../../../deploy/palisade.toml");

fn settings(document: Document) -> Settings {
    document.settings(StoreChoice::Memory).unwrap()
}

#[test]
fn the_example_says_the_defaults_and_all_of_them() {
    let example = Document::parse(EXAMPLE).unwrap();
    let defaults = settings(Document::default());
    assert_eq!(defaults.validate(), Ok(()));
    assert_eq!(settings(example.clone()), defaults);
    // What has a default is there; it is not only left out.
    assert_eq!(example, Document::of(&defaults));
}

#[test]
fn what_the_example_leaves_out_is_what_could_be_there() {
    let is_setting =
        |rest: &str| rest.starts_with("[[") || rest.split_once(" = ").is_some_and(is_key);
    fn is_key((key, _): (&str, &str)) -> bool {
        key.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    }
    let uncomment = |line: &str| match line.strip_prefix('#') {
        Some(rest) if is_setting(rest) && !rest.starts_with("file") => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    let whole = EXAMPLE.lines().map(uncomment).collect::<String>();
    let document = Document::parse(&whole).unwrap();
    let settings = settings(document);
    assert_eq!(settings.validate(), Ok(()));
    assert_eq!(settings.rules.all().len(), 2);
    assert!(settings.tls.unwrap().client_ca.is_some() && settings.token_file.is_some());
    let StoreChoice::Etcd {
        endpoints,
        prefix,
        access,
    } = settings.store
    else {
        panic!("etcd is commented out");
    };
    assert!(access.ca_file.is_some() && access.key_file.is_some());
    assert!(access.password_file.is_some() && access.strict);
    assert_eq!(
        (endpoints.len(), prefix.as_str()),
        (3, StoreChoice::DEFAULT_PREFIX)
    );
}

#[test]
fn a_dump_reads_back_as_the_same_settings() {
    let file = Document::parse(
        "listen = \"[::1]:1\"\n[store]\netcd = \"http://a:1, http://b:2\"\netcd_prefix = \"x/\"\netcd_user = \"u\"\netcd_password_file = \"p\"\netcd_batching = false\netcd_strict = true\n\
         [tls]\ncert_file = \"c\"\nkey_file = \"k\"\nclient_ca_file = \"a\"\n\
         [auth]\ntoken_file = \"t\"\n[limits]\nmax_ttl = \"90m\"\n[timeouts]\nsweep = \"1500ms\"\n\
         [[rules]]\nprincipal = \"*\"\nprefix = \"a/\"\nverbs = [\"read\", \"admin\", \"acquire\"]\n",
    );
    let settings = settings(file.unwrap());
    let dump = Document::of(&settings).to_toml().unwrap();
    let back = Document::parse(&dump).unwrap();
    assert_eq!(
        back.settings(StoreChoice::Memory).unwrap(),
        settings,
        "{dump}"
    );
}

#[test]
fn the_command_line_beats_the_environment_beats_the_file_beats_the_default() {
    let variables = |all: &[(&str, &str)]| {
        let all = all
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Document::from_variables(all).unwrap()
    };
    let file = || Document::parse("http = \"127.0.0.1:3\"\n[limits]\nmax_calls = 3\n").unwrap();
    let environment = || {
        variables(&[
            ("PALISADE_HTTP", "127.0.0.1:2"),
            ("PALISADE_LIMITS__MAX_CALLS", "2"),
            ("PALISADE_ADDR", "not ours"),
            ("PALISADE_LIMITS__MAX_WAIT", ""),
            ("OTHER__X", "not ours either"),
        ])
    };
    let word = || {
        let http = Document::word("http", "127.0.0.1:1").unwrap();
        Document::word("limits.max_calls", "1").unwrap().over(http)
    };
    for (document, port, calls) in [
        (Document::default(), 7651, 20_000),
        (file(), 3, 3),
        (environment().over(file()), 2, 2),
        (word().over(file()), 1, 1),
        (word().over(environment().over(file())), 1, 1),
        (word().over(environment()), 1, 1),
    ] {
        let settings = settings(document);
        assert_eq!(
            (settings.http.port(), settings.limits.max_calls),
            (port, calls)
        );
        assert_eq!(settings.limits.max_wait, Duration::from_secs(3600));
    }
}

#[test]
fn naming_one_store_takes_the_place_of_another_below() {
    let etcd = || Document::word("store.etcd", "http://a:1,http://b:2").unwrap();
    let file = || Document::word("store.file", "f").unwrap();
    let store = |document: Document| settings(document).store;
    assert!(
        matches!(store(etcd().over(file())), StoreChoice::Etcd { endpoints, .. } if endpoints.len() == 2)
    );
    assert!(matches!(
        store(file().over(etcd())),
        StoreChoice::Embedded { .. }
    ));
    let both = "[store]\netcd = []\nfile = \"f\"\n";
    let both = Document::parse(both).unwrap().settings(StoreChoice::Memory);
    assert_eq!(both, Err(DocumentError::TwoStores));
    let both = [
        ("PALISADE_STORE__ETCD", "http://a:1"),
        ("PALISADE_STORE__FILE", "f"),
    ];
    let both = both.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(
        Document::from_variables(both),
        Err(DocumentError::TwoStores)
    );
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, said) in [
        (
            "[limits]\nmax_callz = 1\n",
            ["line 2, column 1", "max_callz"],
        ),
        ("\n\n[limit]\n", ["line 3, column 2", "limit"]),
        ("listen = \"nowhere\"\n", ["line 1, column 10", "address"]),
        (
            "[limits]\n  max_ttl = \"5\"\n",
            ["line 2, column 13", "its unit"],
        ),
        ("[limits]\nmax_ttl = 5\n", ["line 2, column 11", "string"]),
        ("[limits]\nmax_calls = -1\n", ["line 2, column 13", "-1"]),
        ("[store]\netcd = 7\n", ["line 2, column 8", "commas"]),
        ("[limits\n", ["line 1, column 8", ""]),
        (
            "[[rules]]\nprincipal = \"a\"\nprefix = \"a//b\"\nverbs = []\n",
            ["line 3, column 10", "a//b"],
        ),
        (
            "[[rules]]\nprincipal = \"a\"\nprefix = \"\"\nverbs = [\"write\"]\n",
            ["line 4, column 10", "acquire"],
        ),
    ] {
        let error = Document::parse(text).unwrap_err().to_string();
        for said in said {
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
    for (name, value, said) in [
        ("PALISADE_LIMITS__MAX_CALLZ", "1", "max_callz"),
        ("PALISADE_LIMITS__MAX_CALLS", "many", "many"),
        ("PALISADE_LIMITS__MAX_TTL", "5", "its unit"),
        ("PALISADE_LIMITZ__X", "5", "limitz"),
    ] {
        let error = Document::from_variables([(name.to_owned(), value.to_owned())]);
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(name) && error.contains(said), "{error}");
    }
    for text in [
        "[tls]\ncert_file = \"c\"\n",
        "[tls]\nclient_ca_file = \"c\"\n",
    ] {
        let half = Document::parse(text).unwrap().settings(StoreChoice::Memory);
        assert_eq!(half, Err(DocumentError::HalfTls));
    }
    let named =
        Document::parse("[[rules]]\nprincipal = \"a\"\nprefix = \"\"\nverbs = [\"read\"]\n");
    let unasked = settings(named.unwrap()).validate().unwrap_err();
    assert_eq!(unasked.setting, "rules");
}
