//! Two coordinators in memory: what they are asked goes to the simulation, which answers.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::stream::BoxStream;
use palisade_api::v1::lease_service_server::{LeaseService, LeaseServiceServer};
use palisade_api::{AttachRequest, AttachResponse, v1};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// What a connection holds on its way.
const BUFFER: usize = 64 * 1024;

/// What is asked, over whichever transport.
#[derive(Debug, Clone)]
pub(super) enum What {
    Open {
        named: Vec<v1::OpenRequest>,
    },
    Renew,
    Acquire {
        resource: String,
        request_id: String,
    },
    Release {
        resource: String,
    },
    /// Anything else.
    Other,
}

/// Where the answer goes.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Call(Arc<Mutex<Option<oneshot::Sender<Answer>>>>),
    /// To the message with this number.
    Stream(mpsc::UnboundedSender<Result<AttachResponse, Status>>, u64),
}

pub(super) type Answer = Result<Given, Status>;

/// What a store gives.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) ttl_ms: u64,
    pub(super) left_ms: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) host: usize,
    pub(super) what: What,
    pub(super) reply: Reply,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) asked: VecDeque<Asked>,
    /// The streams of each host.
    pub(super) streams: [Vec<mpsc::UnboundedSender<Result<AttachResponse, Status>>>; 2],
    /// It takes no connections.
    pub(super) down: [bool; 2],
}

pub(super) type SharedInbox = Arc<Mutex<Inbox>>;

#[derive(Debug, Clone)]
struct Service {
    host: usize,
    inbox: SharedInbox,
}

/// Connects to one of them.
pub(super) type Dial = Arc<dyn Fn(usize) -> io::Result<DuplexStream> + Send + Sync>;

/// Starts both; the way to connect to them.
#[allow(
    clippy::disallowed_methods,
    reason = "they end with the simulation's runtime"
)]
pub(super) fn start(inbox: &SharedInbox) -> Dial {
    let listening = [0, 1].map(|host| {
        let (accept, accepted) = mpsc::unbounded_channel::<io::Result<DuplexStream>>();
        let inbox = Arc::clone(inbox);
        let service = LeaseServiceServer::new(Service { host, inbox });
        tokio::spawn(async move {
            let serving = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(UnboundedReceiverStream::new(accepted));
            serving.await.unwrap();
        });
        accept
    });
    let inbox = Arc::clone(inbox);
    Arc::new(move |host| {
        if inbox.lock().unwrap().down[host] {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = tokio::io::duplex(BUFFER);
        drop(listening[host].send(Ok(far)));
        Ok(near)
    })
}

pub(super) const SESSION: &str = "00000000000000ab";

fn lease(resource: &str, request_id: &str) -> palisade_api::Lease {
    palisade_api::Lease {
        resource: resource.to_owned(),
        token: 42,
        holder: vec![9; 16],
        session_id: SESSION.to_owned(),
        request_id: request_id.to_owned(),
        ..palisade_api::Lease::default()
    }
}

impl Reply {
    /// Answers what was asked. May be done twice.
    pub(super) fn send(&self, what: &What, answer: Answer) {
        match self {
            Self::Call(once) => {
                let reply = once.lock().unwrap().take();
                if let Some(reply) = reply {
                    drop(reply.send(answer));
                }
            }
            Self::Stream(tell, seq) => {
                if let Some(told) = on_stream(what, *seq, answer) {
                    drop(tell.send(told));
                }
            }
        }
    }
}

fn stands(named: &v1::OpenRequest) -> v1::OpenRequestStatus {
    let state = match named.token {
        0 => v1::OpenRequestState::Absent,
        _ => v1::OpenRequestState::Held,
    };
    v1::OpenRequestStatus {
        request: Some(named.clone()),
        state: state.into(),
    }
}

fn on_stream(what: &What, seq: u64, answer: Answer) -> Option<Result<AttachResponse, Status>> {
    use v1::attach_response::Message;
    let Given { ttl_ms, left_ms } = match answer {
        Ok(given) => given,
        Err(status) => return Some(Err(status)),
    };
    let message = match what {
        What::Open { named } => Message::Opened(v1::AttachOpened {
            session_id: SESSION.to_owned(),
            ttl_ms,
            ttl_left_ms: left_ms,
            resumed: false,
            requests: named.iter().map(stands).collect(),
        }),
        What::Renew => Message::Renewed(v1::AttachRenewed {
            ttl_ms,
            ttl_left_ms: left_ms,
        }),
        What::Acquire {
            resource,
            request_id,
        } => Message::Granted(v1::AttachGranted {
            lease: Some(lease(resource, request_id)),
            ttl_left_ms: left_ms,
            previous: None,
        }),
        What::Release { resource } => Message::Released(v1::AttachReleased {
            resource: resource.clone(),
            outcome: v1::ReleaseOutcome::Released.into(),
            end: v1::LeaseEnd::Released.into(),
            ..v1::AttachReleased::default()
        }),
        What::Other => return None,
    };
    Some(Ok(AttachResponse {
        reply_to: seq,
        message: Some(message),
    }))
}

impl Service {
    async fn ask(&self, what: What) -> Answer {
        let (reply, answer) = oneshot::channel();
        let asked = Asked {
            host: self.host,
            what,
            reply: Reply::Call(Arc::new(Mutex::new(Some(reply)))),
        };
        self.inbox.lock().unwrap().asked.push_back(asked);
        match answer.await {
            Ok(answer) => answer,
            // Lost on the way.
            Err(_) => std::future::pending().await,
        }
    }
}

fn of_stream(message: Option<v1::attach_request::Message>) -> What {
    use v1::attach_request::Message;
    match message {
        Some(Message::Open(open)) => What::Open {
            named: open.open_requests,
        },
        Some(Message::Renew(_)) => What::Renew,
        Some(Message::Acquire(acquire)) => What::Acquire {
            resource: acquire.resource,
            request_id: acquire.request_id,
        },
        Some(Message::Release(release)) => What::Release {
            resource: release.resource,
        },
        _ => What::Other,
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a stream's task, ended with the stream"
)]
#[tonic::async_trait]
impl LeaseService for Service {
    type AttachStream = BoxStream<'static, Result<AttachResponse, Status>>;
    type WatchLeasesStream = BoxStream<'static, Result<v1::WatchLeasesResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut requests = request.into_inner();
        let (tell, told) = mpsc::unbounded_channel();
        let service = self.clone();
        service.inbox.lock().unwrap().streams[self.host].push(tell.clone());
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let asked = Asked {
                    host: service.host,
                    what: of_stream(request.message),
                    reply: Reply::Stream(tell.clone(), request.seq),
                };
                service.inbox.lock().unwrap().asked.push_back(asked);
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(told).boxed()))
    }

    async fn open_session(
        &self,
        _: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let Given { ttl_ms, left_ms } = self.ask(What::Open { named: Vec::new() }).await?;
        Ok(Response::new(v1::OpenSessionResponse {
            session_id: SESSION.to_owned(),
            ttl_ms,
            ttl_left_ms: left_ms,
        }))
    }

    async fn renew_session(
        &self,
        _: Request<v1::RenewSessionRequest>,
    ) -> Result<Response<v1::RenewSessionResponse>, Status> {
        let Given { ttl_ms, left_ms } = self.ask(What::Renew).await?;
        Ok(Response::new(v1::RenewSessionResponse {
            ttl_ms,
            ttl_left_ms: left_ms,
            open_requests: Vec::new(),
        }))
    }

    async fn close_session(
        &self,
        _: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        Ok(Response::new(v1::CloseSessionResponse {}))
    }

    async fn acquire(
        &self,
        request: Request<palisade_api::AcquireRequest>,
    ) -> Result<Response<palisade_api::AcquireResponse>, Status> {
        let request = request.into_inner();
        let what = What::Acquire {
            resource: request.resource.clone(),
            request_id: request.request_id.clone(),
        };
        let given = self.ask(what).await?;
        Ok(Response::new(palisade_api::AcquireResponse {
            lease: Some(lease(&request.resource, &request.request_id)),
            session_id: SESSION.to_owned(),
            ttl_left_ms: given.left_ms,
            previous: None,
        }))
    }

    async fn release(
        &self,
        _: Request<palisade_api::ReleaseRequest>,
    ) -> Result<Response<palisade_api::ReleaseResponse>, Status> {
        Ok(Response::new(palisade_api::ReleaseResponse {
            outcome: v1::ReleaseOutcome::Released.into(),
            ..palisade_api::ReleaseResponse::default()
        }))
    }

    async fn get_lease(
        &self,
        _: Request<v1::GetLeaseRequest>,
    ) -> Result<Response<v1::GetLeaseResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_leases(
        &self,
        _: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn watch_leases(
        &self,
        _: Request<v1::WatchLeasesRequest>,
    ) -> Result<Response<Self::WatchLeasesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn check_token(
        &self,
        _: Request<v1::CheckTokenRequest>,
    ) -> Result<Response<v1::CheckTokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
