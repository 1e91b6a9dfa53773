//! A client of one stream.

use std::collections::HashMap;
use std::time::Duration;

use palisade_api::v1::attach_open::Owner;
use palisade_api::v1::attach_release::Hold;
use palisade_api::v1::attach_request::Message as Ask;
use palisade_api::v1::attach_response::Message as Told;
use palisade_api::v1::{
    AttachAcquire, AttachCancel, AttachClose, AttachGranted, AttachOpen, AttachOpened,
    AttachRelease, AttachReleased, AttachRenew, OpenRequest,
};
use palisade_api::{AttachRequest, AttachResponse, ErrorReason, Refusal, SessionRef};
use palisade_test_support::within;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::{Client, LONG, opening};

/// A wait that no test sits out.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) struct Stream {
    to: mpsc::Sender<AttachRequest>,
    from: Streaming<AttachResponse>,
    seq: u64,
}

impl Stream {
    /// A stream that has said nothing yet.
    pub(crate) async fn begin(client: &Client) -> Self {
        let (to, rest) = mpsc::channel(4096);
        let mut client = client.clone();
        let answer = client.attach(ReceiverStream::new(rest));
        let answer = within("the stream begins", LONG, answer).await.unwrap();
        Self {
            to,
            from: answer.unwrap().into_inner(),
            seq: 0,
        }
    }

    /// Opens a session, or resumes the one that this opening made.
    pub(crate) async fn open(client: &Client, name: &str) -> (Self, AttachOpened) {
        Self::with(client, Owner::Opening(opening(name)), Vec::new()).await
    }

    /// Resumes a session.
    pub(crate) async fn resume(
        client: &Client,
        session: &SessionRef,
        known: Vec<OpenRequest>,
    ) -> (Self, AttachOpened) {
        Self::with(client, Owner::Session(session.clone()), known).await
    }

    pub(crate) async fn with(
        client: &Client,
        owner: Owner,
        known: Vec<OpenRequest>,
    ) -> (Self, AttachOpened) {
        let mut stream = Self::begin(client).await;
        stream.send(open(owner, known)).await;
        match stream.told().await {
            (1, Told::Opened(opened)) => (stream, opened),
            other => panic!("not opened: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, message: Ask) -> u64 {
        self.seq += 1;
        self.send_as(self.seq, Some(message)).await
    }

    pub(crate) async fn send_as(&mut self, seq: u64, message: Option<Ask>) -> u64 {
        self.seq = seq;
        let request = AttachRequest { seq, message };
        // A stream that has ended takes no more; its status says why.
        drop(self.to.send(request).await);
        seq
    }

    pub(crate) async fn told(&mut self) -> (u64, Told) {
        let told = self.next().await;
        let told = told.unwrap().expect("the stream goes on");
        (told.reply_to, told.message.unwrap())
    }

    pub(crate) async fn next(&mut self) -> Result<Option<AttachResponse>, Status> {
        let next = within("the stream says something", LONG, self.from.message());
        next.await.unwrap()
    }

    /// The status with which the stream ends; what comes before is passed over.
    pub(crate) async fn end(&mut self) -> Result<(), Status> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// Ends the client's side.
    pub(crate) fn hang_up(self) -> Streaming<AttachResponse> {
        self.from
    }

    pub(crate) async fn acquire(&mut self, resource: &str, request: &str, wait: Duration) -> u64 {
        self.send(acquire(resource, request, wait)).await
    }

    /// Acquires, and is granted.
    pub(crate) async fn granted(&mut self, resource: &str, request: &str) -> i64 {
        let seq = self.acquire(resource, request, Duration::ZERO).await;
        self.hears_grant(seq).await
    }

    /// Hears of a grant; that it waits may come before.
    pub(crate) async fn hears_grant(&mut self, seq: u64) -> i64 {
        loop {
            match self.told().await {
                (reply, Told::Granted(granted)) if reply == seq => return token(&granted),
                (reply, Told::Queued(_)) if reply == seq => {}
                other => panic!("not granted: {other:?}"),
            }
        }
    }

    pub(crate) async fn release(&mut self, resource: &str, token: i64) -> AttachReleased {
        let seq = self.send(release(resource, Hold::Token(token))).await;
        self.hears_release(seq).await
    }

    pub(crate) async fn hears_release(&mut self, seq: u64) -> AttachReleased {
        match self.told().await {
            (reply, Told::Released(released)) if reply == seq => released,
            other => panic!("not released: {other:?}"),
        }
    }

    pub(crate) async fn hears_refusal(
        &mut self,
        seq: u64,
        code: Code,
        reason: ErrorReason,
    ) -> HashMap<String, String> {
        loop {
            match self.told().await {
                (reply, Told::Refused(refused)) if reply == seq => {
                    return is_refused(refused.refusal.unwrap(), code, reason);
                }
                (reply, Told::Queued(_)) if reply == seq => {}
                other => panic!("not refused: {other:?}"),
            }
        }
    }

    /// Renews, and hears of it.
    pub(crate) async fn renew(&mut self, known: Vec<OpenRequest>) {
        let seq = self.send(renew(known)).await;
        match self.told().await {
            (reply, Told::Renewed(renewed)) if reply == seq => {
                assert!(renewed.ttl_left_ms > 0 && renewed.ttl_left_ms <= renewed.ttl_ms);
            }
            other => panic!("not renewed: {other:?}"),
        }
    }
}

pub(crate) fn is_refused(
    refusal: Refusal,
    code: Code,
    reason: ErrorReason,
) -> HashMap<String, String> {
    assert_eq!(
        (Code::from(refusal.code), refusal.reason.as_str()),
        (code, reason.reason()),
        "{refusal:?}"
    );
    refusal.metadata
}

pub(crate) fn open(owner: Owner, known: Vec<OpenRequest>) -> Ask {
    Ask::Open(AttachOpen {
        owner: Some(owner),
        open_requests: known,
    })
}

/// The session of [`opening`], for a stream that takes it over.
pub(crate) fn reference(opened: &AttachOpened, epoch: u64) -> SessionRef {
    SessionRef {
        session_id: opened.session_id.clone(),
        secret: opening("any").secret,
        epoch,
    }
}

pub(crate) fn acquire(resource: &str, request: &str, wait: Duration) -> Ask {
    Ask::Acquire(AttachAcquire {
        request_id: request.to_owned(),
        resource: resource.to_owned(),
        wait_ms: u64::try_from(wait.as_millis()).unwrap(),
        ..AttachAcquire::default()
    })
}

/// The same once more, as a client sends it whose first try had no answer.
pub(crate) fn again(resource: &str, request: &str, wait: Duration) -> Ask {
    match acquire(resource, request, wait) {
        Ask::Acquire(acquire) => Ask::Acquire(AttachAcquire {
            attempt: 2,
            ..acquire
        }),
        other => other,
    }
}

pub(crate) fn cancel(resource: &str, request: &str) -> Ask {
    Ask::Cancel(AttachCancel {
        request_id: request.to_owned(),
        resource: resource.to_owned(),
    })
}

pub(crate) fn release(resource: &str, hold: Hold) -> Ask {
    Ask::Release(AttachRelease {
        resource: resource.to_owned(),
        hold: Some(hold),
        refused_by_fence: 0,
    })
}

pub(crate) fn renew(known: Vec<OpenRequest>) -> Ask {
    Ask::Renew(AttachRenew {
        open_requests: known,
    })
}

pub(crate) fn close() -> Ask {
    Ask::Close(AttachClose {})
}

pub(crate) fn known(resource: &str, request: &str, token: i64) -> OpenRequest {
    OpenRequest {
        resource: resource.to_owned(),
        request_id: request.to_owned(),
        token,
    }
}

pub(crate) fn token(granted: &AttachGranted) -> i64 {
    granted.lease.as_ref().unwrap().token
}
