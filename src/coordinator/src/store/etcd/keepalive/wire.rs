//! etcd's `LeaseKeepAlive` as it is on the wire: one stream for any number of leases. The crate's own client
//! has one stream for each lease.

use std::sync::Arc;

use etcd_client::AuthClient;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use http::uri::PathAndQuery;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::metadata::errors::InvalidMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::store::etcd::connect::Login;

const METHOD: PathAndQuery = PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");

/// `LeaseKeepAliveRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Renew {
    #[prost(int64, tag = "1")]
    pub(super) lease: i64,
}

/// `LeaseKeepAliveResponse` without its header, which proves nothing: it is the member's own, not the log's.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Renewed {
    #[prost(int64, tag = "2")]
    pub(super) lease: i64,
    /// In seconds; 0 where there is no such lease.
    #[prost(int64, tag = "3")]
    pub(super) ttl: i64,
}

/// Where streams are opened.
#[derive(Clone)]
pub(super) struct Wire {
    channel: Channel,
    auth: Option<Auth>,
}

/// Who the streams are opened for, where etcd asks for that.
#[derive(Clone)]
struct Auth {
    client: AuthClient,
    login: Login,
    /// The token in use; none until it is needed, and after it was refused.
    token: Arc<Mutex<Option<AsciiMetadataValue>>>,
}

impl Auth {
    /// The token in use. Whoever comes first gets it, and the others wait: etcd takes its time over passwords.
    async fn token(&self) -> Result<AsciiMetadataValue, Status> {
        let mut token = self.token.lock().await;
        if let Some(token) = &*token {
            return Ok(token.clone());
        }
        let Login { name, password } = self.login.clone();
        let told = self.client.clone().authenticate(name, password).await;
        let told = told.map_err(|error| match error {
            etcd_client::Error::GRpcStatus(status) => status,
            other => Status::from_error(Box::new(other)),
        })?;
        let made: AsciiMetadataValue = (told.token().parse())
            .map_err(|error: InvalidMetadataValue| Status::from_error(error.into()))?;
        *token = Some(made.clone());
        Ok(made)
    }

    /// Forgets a token that was refused, unless another one has taken its place already.
    async fn refused(&self, token: &AsciiMetadataValue) {
        let mut current = self.token.lock().await;
        if current.as_ref() == Some(token) {
            *current = None;
        }
    }
}

/// One open stream. Dropping it ends it.
pub(super) struct Stream {
    pub(super) requests: mpsc::Sender<Renew>,
    pub(super) replies: BoxStream<'static, Result<Renewed, Status>>,
}

impl Wire {
    pub(super) fn new(channel: Channel, client: AuthClient, login: Option<Login>) -> Self {
        let auth = login.map(|login| Auth {
            client,
            login,
            token: Arc::default(),
        });
        Self { channel, auth }
    }

    /// Opens a stream that takes up to `window` requests ahead of their replies. It is opened by the first
    /// request: etcd sends no headers before its first reply, so nothing is waited for here.
    pub(super) fn open(&self, window: usize) -> Stream {
        let (requests, taken) = mpsc::channel(window);
        let replies = stream::once(replies(self.clone(), taken)).try_flatten();
        Stream {
            requests,
            replies: replies.boxed(),
        }
    }
}

async fn replies(
    wire: Wire,
    requests: mpsc::Receiver<Renew>,
) -> Result<tonic::Streaming<Renewed>, Status> {
    let mut grpc = Grpc::new(wire.channel.clone());
    let away = |error: tonic::transport::Error| Status::from_error(error.into());
    grpc.ready().await.map_err(away)?;
    let mut request = Request::new(ReceiverStream::new(requests));
    // A member that has lost its leader says so, instead of holding renewals back.
    let headers = request.metadata_mut();
    headers.insert("hasleader", AsciiMetadataValue::from_static("true"));
    let mut shown = None;
    if let Some(auth) = &wire.auth {
        let token = auth.token().await?;
        headers.insert("token", token.clone());
        shown = Some((auth, token));
    }
    let codec = ProstCodec::<Renew, Renewed>::default();
    let opened = grpc.streaming(request, METHOD, codec).await;
    if let (Err(status), Some((auth, token))) = (&opened, shown)
        && status.code() == Code::Unauthenticated
    {
        auth.refused(&token).await;
    }
    Ok(opened?.into_inner())
}
