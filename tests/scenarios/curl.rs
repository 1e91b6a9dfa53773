//! Plain curl acquires, renews, watches and releases: no library, no generated code.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;

use palisade_test_support::{Coordinator, Etcd, within};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::setup::{LIMIT, coordinator};

/// 16 bytes, as base64.
const SECRET: &str = "c2l4dGVlbi1ieXRlcy1zZWNyZXQ=";

fn spawned(command: &mut Command) -> Child {
    match command.kill_on_drop(true).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("curl is not on PATH: install it (the package is called curl)")
        }
        Err(error) => panic!("curl cannot be started: {error}"),
    }
}

/// What curl wrote.
async fn curl(args: &[&str]) -> Vec<u8> {
    let mut command = Command::new("curl");
    // Whatever a user's .curlrc says.
    command.args(["-q", "-sS"]).args(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawned(&mut command).wait_with_output();
    let output = within("curl ends", LIMIT, output).await.unwrap().unwrap();
    assert!(output.status.success(), "curl {args:?}: {output:?}");
    output.stdout
}

/// Code and body of an answer in JSON.
async fn answered(args: &[&str]) -> (u16, Value) {
    let written = curl(&[&["-w", "\n%{http_code}"], args].concat()).await;
    let written = String::from_utf8(written).unwrap();
    let (body, code) = written.rsplit_once('\n').unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {body}"));
    (code.parse().unwrap(), body)
}

async fn good(args: &[&str]) -> Value {
    let (code, body) = answered(args).await;
    assert_eq!(code, 200, "{args:?}: {body}");
    body
}

async fn post(at: &Coordinator, path: &str, body: &Value) -> (u16, Value) {
    let (url, body) = (format!("{}{path}", at.http_addr()), body.to_string());
    answered(&["-H", "content-type: application/json", "-d", &body, &url]).await
}

async fn posted(at: &Coordinator, path: &str, body: &Value) -> Value {
    let (code, body) = post(at, path, body).await;
    assert_eq!(code, 200, "{path}: {body}");
    body
}

async fn open(at: &Coordinator, open_id: &str) -> Value {
    let opening = json!({ "open_id": open_id, "secret": SECRET, "ttl_ms": 120_000 });
    let opened = posted(at, "/v1/sessions", &json!({ "opening": opening })).await;
    json!({ "session_id": opened["session_id"], "secret": SECRET })
}

/// `curl -N` on a watch.
struct Watch {
    _curl: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

#[derive(Debug)]
struct Event {
    name: String,
    id: Option<String>,
    data: Value,
}

impl Watch {
    fn start(at: &Coordinator, query: &str, args: &[&str]) -> Self {
        let url = format!("{}/v1/leases:watch?{query}", at.http_addr());
        let mut command = Command::new("curl");
        command.args(["-q", "-sS", "-N"]).args(args).arg(url);
        let mut curl = spawned(command.stdout(Stdio::piped()));
        let lines = BufReader::new(curl.stdout.take().unwrap()).lines();
        Self { _curl: curl, lines }
    }

    /// The next event that is no bookmark.
    async fn next(&mut self) -> Event {
        loop {
            let event = within("an event", LIMIT, self.event()).await.unwrap();
            if event.name != "BOOKMARK" {
                return event;
            }
        }
    }

    async fn event(&mut self) -> Event {
        let (mut name, mut id, mut data) = (None, None, Value::Null);
        loop {
            let line = self.lines.next_line().await.unwrap();
            let line = line.expect("the watch ended");
            let field = line.split_once(':');
            match field.map(|(field, value)| (field, value.trim_start())) {
                Some(("event", value)) => name = Some(value.to_owned()),
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("data", value)) => data = serde_json::from_str(value).unwrap(),
                // A comment, or what ends one.
                _ => {
                    if let Some(name) = name {
                        return Event { name, id, data };
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn curl_acquires_renews_and_releases() {
    let etcd = Etcd::start().await.unwrap();
    let at = coordinator(&etcd.endpoints()).await;
    let session = open(&at, "one").await;
    let id = session["session_id"].as_str().unwrap();
    let body = json!({ "session": session, "request_id": "r1", "resource": "jobs/import" });
    let granted = posted(&at, "/v1/leases:acquire", &body).await;
    let token = granted["lease"]["token"].as_i64().unwrap();
    assert!((1..1 << 53).contains(&token));

    let url = format!("{}/v1/leases/jobs/import", at.http_addr());
    assert_eq!(good(&[&url]).await["lease"]["token"], token);
    let url = format!("{}/v1/sessions/{id}", at.http_addr());
    let secret = format!("x-palisade-session-secret: {SECRET}");
    let renew = format!("{url}:renew");
    let renewed = good(&["-X", "POST", "-H", &secret, &renew]).await;
    assert_eq!(renewed["ttl_ms"], 120_000);

    let other = open(&at, "two").await;
    let body = json!({ "session": other, "request_id": "r1", "resource": "jobs/import" });
    let (code, refused) = post(&at, "/v1/leases:acquire", &body).await;
    let reason = &refused["error"]["details"][0]["reason"];
    assert_eq!((code, reason), (400, &json!("LEASE_HELD")), "{refused}");

    let body = json!({ "session": session, "resource": "jobs/import", "token": token });
    let released = posted(&at, "/v1/leases:release", &body).await;
    assert_eq!(released["outcome"], "RELEASED");
    good(&["-X", "DELETE", "-H", &secret, &url]).await;
    let (code, ended) = answered(&["-X", "POST", "-H", &secret, &renew]).await;
    let reason = &ended["error"]["details"][0]["reason"];
    assert_eq!((code, reason), (404, &json!("SESSION_ENDED")), "{ended}");
}

#[tokio::test]
async fn curl_speaks_grpc_web_with_bytes_made_by_hand() {
    let etcd = Etcd::start().await.unwrap();
    let at = coordinator(&etcd.endpoints()).await;
    let session = open(&at, "one").await;
    let body = json!({ "session": session, "request_id": "r1", "resource": "jobs/import" });
    posted(&at, "/v1/leases:acquire", &body).await;

    // GetLeaseRequest { resource }: a frame of 13 bytes, the field 1, 11 bytes long.
    let asked = [&[0, 0, 0, 0, 13, 0x0a, 11][..], b"jobs/import"].concat();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("request");
    tokio::fs::write(&file, asked).await.unwrap();
    let data = format!("@{}", Path::display(&file));
    let url = format!("{}/palisade.v1.LeaseService/GetLease", at.addr());
    let kind = "content-type: application/grpc-web+proto";
    let answer = curl(&["--http1.1", "-H", kind, "--data-binary", &data, &url]).await;

    let (head, rest) = answer.split_at(5);
    assert_eq!(head[0], 0, "a message comes first: {answer:?}");
    let length = u32::from_be_bytes(head[1..].try_into().unwrap());
    let (message, rest) = rest.split_at(usize::try_from(length).unwrap());
    let holds = message.windows(11).any(|name| name == b"jobs/import");
    assert!(holds, "{message:?}");
    assert_eq!(rest[0], 0x80, "trailers come last: {rest:?}");
    let trailers = String::from_utf8_lossy(&rest[5..]).replace(' ', "");
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
}

#[tokio::test]
async fn curl_watches_and_goes_on_where_it_left_off() {
    let etcd = Etcd::start().await.unwrap();
    let at = coordinator(&etcd.endpoints()).await;
    let session = open(&at, "one").await;
    let mut watch = Watch::start(&at, "prefix=jobs/", &[]);
    assert_eq!(watch.next().await.name, "SNAPSHOT_END");

    let body = json!({ "session": session, "request_id": "r1", "resource": "jobs/import" });
    let granted = posted(&at, "/v1/leases:acquire", &body).await;
    let token = &granted["lease"]["token"];
    let seen = watch.next().await;
    assert_eq!(seen.name, "GRANTED", "{seen:?}");
    assert_eq!(seen.data["resource"], "jobs/import");
    assert_eq!(&seen.data["lease"]["token"], token);
    assert_eq!(seen.id, Some(seen.data["revision"].to_string()));
    drop(watch);

    let body = json!({ "session": session, "resource": "jobs/import", "token": token });
    posted(&at, "/v1/leases:release", &body).await;
    let from = format!("last-event-id: {}", seen.id.unwrap());
    let mut watch = Watch::start(&at, "prefix=jobs/", &["-H", &from]);
    let ended = watch.next().await;
    assert_eq!(ended.name, "RELEASED", "{ended:?}");
    assert_eq!(&ended.data["lease"]["token"], token);
    // Of one revision, so only the last has an id.
    assert_eq!(ended.id, None);
    let vacant = watch.next().await;
    assert_eq!(
        (vacant.name.as_str(), vacant.id.is_some()),
        ("VACANT", true)
    );

    let mut snapshot = Watch::start(&at, "resource=jobs/import", &[]);
    assert_eq!(snapshot.next().await.name, "SNAPSHOT_END");
}
