//! Bodies that are looked at as they pass.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::{Code, Status};

use super::Call;
use super::methods::Method;

/// Where a gRPC message says how long it is: a flag and four bytes.
const HEADER_BYTES: u32 = 5;

/// Finds where messages begin in the bytes of a body, however they are cut up.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// How much of a header has been seen.
    header: u32,
    length: u32,
    /// What is missing of the message.
    missing: u32,
}

impl Messages {
    /// How many messages begin in further bytes.
    pub(super) fn begin_in(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0;
        while !bytes.is_empty() {
            if self.missing > 0 {
                let left = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let skipped = left.min(self.missing);
                self.missing -= skipped;
                bytes = &bytes[usize::try_from(skipped).unwrap_or(bytes.len())..];
                continue;
            }
            self.length = (self.length << 8) | u32::from(bytes[0]);
            bytes = &bytes[1..];
            self.header += 1;
            if self.header == HEADER_BYTES {
                begun += 1;
                // The flag was shifted out.
                self.missing = self.length;
                self.header = 0;
            }
        }
        begun
    }
}

pin_project! {
    /// What a client sends.
    pub(super) struct Received<B> {
        #[pin]
        inner: B,
        method: Arc<Method>,
        messages: Messages,
    }
}

impl<B> Received<B> {
    pub(super) fn new(inner: B, method: Arc<Method>) -> Self {
        Self {
            inner,
            method,
            messages: Messages::default(),
        }
    }
}

impl<B: Body<Data = Bytes>> Body for Received<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(bytes) = frame.data_ref()
        {
            this.method.received(this.messages.begin_in(bytes));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// What a client is sent. The call ends with its trailers, or with it.
    #[derive(Debug)]
    pub(crate) struct Counted<B> {
        #[pin]
        inner: B,
        call: Option<Call>,
        messages: Messages,
    }
}

impl<B> Counted<B> {
    /// An answer; one without messages says in its headers how the call ended.
    pub(super) fn answer(response: Response<B>, mut call: Option<Call>) -> Response<Self> {
        if let Some(code) = code(response.headers())
            && let Some(call) = call.take()
        {
            call.end(code);
        }
        response.map(|inner| Self {
            inner,
            call,
            messages: Messages::default(),
        })
    }
}

impl<B: Body<Data = Bytes>> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(context));
        let end = match &frame {
            Some(Ok(frame)) => {
                if let (Some(call), Some(bytes)) = (&this.call, frame.data_ref())
                    && call.method.streams_answers()
                {
                    call.method.sent(this.messages.begin_in(bytes));
                }
                let ended_as = |trailers| code(trailers).unwrap_or(Code::Unknown);
                frame.trailers_ref().map(ended_as)
            }
            Some(Err(_)) => Some(Code::Unknown),
            None => Some(Code::Unknown),
        };
        if let Some(code) = end
            && let Some(call) = this.call.take()
        {
            call.end(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    let code = headers.get(Status::GRPC_STATUS)?;
    Some(Code::from_bytes(code.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Messages;

    proptest! {
        #[test]
        fn messages_are_counted_however_they_are_cut_up(
            lengths in proptest::collection::vec(0_u8..=40, 0..10),
            cut in 1_usize..=50,
        ) {
            let bytes: Vec<u8> = lengths
                .iter()
                .flat_map(|length| {
                    let header = [0, 0, 0, 0, *length];
                    // A content that looks like headers.
                    header.into_iter().chain(std::iter::repeat_n(1, usize::from(*length)))
                })
                .collect();
            let mut messages = Messages::default();
            let begun: u64 = bytes.chunks(cut).map(|some| messages.begin_in(some)).sum();
            prop_assert_eq!(begun, u64::try_from(lengths.len()).unwrap());
        }
    }
}
