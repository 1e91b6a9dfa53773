//! Writes that follow each other at once leave as one. HTTP/2 sends the head, the body and the end of a call each
//! by itself, and each would wake etcd.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// From how many bytes on it is not worth waiting for more.
const ENOUGH_BYTES: usize = 16 * 1024;

/// A stream whose flush lets those who are about to write more go first.
#[derive(Debug)]
pub(super) struct Gather<S> {
    stream: S,
    waiting: BytesMut,
    /// Something was written since the last flush was put off.
    has_grown: bool,
}

impl<S> Gather<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            waiting: BytesMut::new(),
            has_grown: false,
        }
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let written = ready!(stream.poll_write(context, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= ENOUGH_BYTES {
            ready!(self.drain(context))?;
        }
        if self.waiting.is_empty() && bytes.len() >= ENOUGH_BYTES {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        self.waiting.extend_from_slice(bytes);
        self.has_grown = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        all: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= ENOUGH_BYTES {
            ready!(self.drain(context))?;
        }
        let length = all.iter().map(|bytes| bytes.len()).sum();
        if self.waiting.is_empty() && length >= ENOUGH_BYTES {
            return Pin::new(&mut self.stream).poll_write_vectored(context, all);
        }
        for bytes in all {
            self.waiting.extend_from_slice(bytes);
        }
        self.has_grown = true;
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_grown && self.waiting.len() < ENOUGH_BYTES {
            // Whoever was woken by what was just written comes first.
            self.has_grown = false;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.drain(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures::task::noop_waker;
    use tokio::io::AsyncWrite;

    use super::{ENOUGH_BYTES, Gather};

    fn write(gather: &mut Gather<Vec<u8>>, bytes: &[u8]) {
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        let written = Pin::new(gather).poll_write(&mut context, bytes);
        assert!(matches!(written, Poll::Ready(Ok(length)) if length == bytes.len()));
    }

    fn is_flushed(gather: &mut Gather<Vec<u8>>) -> bool {
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        let flushed = Pin::new(gather).poll_flush(&mut context);
        matches!(flushed, Poll::Ready(Ok(())))
    }

    #[test]
    fn what_follows_at_once_leaves_together_and_in_order() {
        let mut gather = Gather::new(Vec::new());
        write(&mut gather, b"head ");
        assert!(!is_flushed(&mut gather), "more may follow");
        write(&mut gather, b"body ");
        assert!(!is_flushed(&mut gather), "more may follow");
        assert!(gather.stream.is_empty());
        assert!(is_flushed(&mut gather), "nothing did");
        assert_eq!(gather.stream, b"head body ");
        assert!(is_flushed(&mut gather), "nothing waits");
    }

    #[test]
    fn what_is_large_does_not_wait_and_overtakes_nothing() {
        let mut gather = Gather::new(Vec::new());
        let large = vec![1; ENOUGH_BYTES];
        write(&mut gather, &large);
        assert_eq!(gather.stream.len(), ENOUGH_BYTES);
        write(&mut gather, b"head");
        write(&mut gather, &large);
        assert!(is_flushed(&mut gather));
        assert_eq!(gather.stream.len(), 2 * ENOUGH_BYTES + 4);
        assert_eq!(gather.stream[ENOUGH_BYTES..][..4], *b"head");
    }
}
