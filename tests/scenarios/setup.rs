//! What several scenarios need.

use std::process::Stdio;
use std::time::Duration;

use palisade_client::{AcquireOptions, Client, ClientError, Lease, Session, SessionOptions};
use palisade_test_support::{Coordinator, within};
use palisade_token::ResourceName;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Longer than anything here takes on a busy machine; reached only by what hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const TTL: Duration = Duration::from_secs(5);

pub(crate) fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

pub(crate) fn waiting(wait: Duration) -> AcquireOptions {
    AcquireOptions::default().wait(wait)
}

pub(crate) async fn coordinator(etcd: &[String]) -> Coordinator {
    Coordinator::builder().etcd(etcd).start().await.unwrap()
}

pub(crate) fn client_of(coordinators: &[&Coordinator]) -> Client {
    let endpoints = coordinators.iter().map(|coordinator| coordinator.addr());
    Client::builder().endpoints(endpoints).connect().unwrap()
}

pub(crate) async fn open(client: &Client) -> Session {
    client
        .open_session(SessionOptions::default().ttl(TTL))
        .await
        .unwrap()
}

/// Acquires with a session of its own.
pub(crate) async fn acquired(client: &Client, resource: &str) -> Result<Lease, ClientError> {
    let session = client
        .open_session(SessionOptions::default().ttl(TTL))
        .await?;
    session.acquire(&name(resource), waiting(LIMIT)).await
}

/// A `scenario-worker` process.
pub(crate) struct Worker {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_scenario-worker"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            commands,
            answers,
        }
    }

    /// Sends a command without waiting for its answer: a frozen worker finds it when it wakes.
    pub(crate) async fn send(&mut self, command: &str) {
        self.commands
            .write_all(format!("{command}\n").as_bytes())
            .await
            .unwrap();
        self.commands.flush().await.unwrap();
    }

    pub(crate) async fn answer(&mut self) -> String {
        let line = within("a worker's answer", LIMIT, self.answers.next_line())
            .await
            .unwrap();
        line.unwrap().unwrap()
    }

    pub(crate) async fn ask(&mut self, command: &str) -> String {
        self.send(command).await;
        self.answer().await
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }
}

/// Starts a task of a test; it ends with the test's runtime.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where scenarios start tasks"
)]
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}
