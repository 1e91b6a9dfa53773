//! etcd's `LeaseKeepAlive` as it is on the wire: one stream for any number of leases. The crate's own client
//! has one stream for each lease.

use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

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
#[derive(Debug, Clone)]
pub(super) struct Wire {
    channel: Channel,
}

/// One open stream. Dropping it ends it.
pub(super) struct Stream {
    pub(super) requests: mpsc::Sender<Renew>,
    pub(super) replies: BoxStream<'static, Result<Renewed, Status>>,
}

impl Wire {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel }
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
    let mut grpc = Grpc::new(wire.channel);
    let away = |error: tonic::transport::Error| Status::from_error(error.into());
    grpc.ready().await.map_err(away)?;
    let mut request = Request::new(ReceiverStream::new(requests));
    // A member that has lost its leader says so, instead of holding renewals back.
    let headers = request.metadata_mut();
    headers.insert("hasleader", AsciiMetadataValue::from_static("true"));
    let codec = ProstCodec::<Renew, Renewed>::default();
    let opened = grpc.streaming(request, METHOD, codec).await?;
    Ok(opened.into_inner())
}
