//! Writes that follow each other at once leave as one. HTTP/2 sends the head, the body and the end of a call each
//! by itself, and each would wake etcd. So would the answers to the pings by which etcd guesses, at each call, how
//! much data the connection can take: those wait a while, which also keeps it from asking so often. (Over TLS none is
//! recognised, and none waits.)

use std::fmt;
use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::clock::Clock;

/// From how many bytes on it is not worth waiting for more.
const ENOUGH_BYTES: usize = 16 * 1024;
/// How often a flush lets others go first before all of it leaves: whoever writes again and again holds up nobody.
const MAX_PUT_OFF: u32 = 4;
/// How long the answer to a ping waits: far below the seconds after which a peer is taken for dead.
const PONG_PAUSE: Duration = Duration::from_millis(25);
/// What the answer to a ping begins with: its length, its type, that it is an answer, and no stream (RFC 9113, 6.7).
const PONG_HEAD: [u8; 9] = [0, 0, 8, 6, 1, 0, 0, 0, 0];
const PONG_BYTES: usize = PONG_HEAD.len() + 8;

/// A stream whose flush lets those who are about to write more go first.
pub(super) struct Gather<S> {
    stream: S,
    clock: Arc<dyn Clock>,
    waiting: BytesMut,
    /// Something was written since the last flush was put off.
    has_grown: bool,
    /// How often a flush was put off since all had left.
    put_off: u32,
    pong: Option<Pong>,
}

/// The answer to a ping, and until when it waits.
struct Pong {
    frame: [u8; PONG_BYTES],
    pause: BoxFuture<'static, ()>,
}

impl<S: fmt::Debug> fmt::Debug for Gather<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Gather")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl<S> Gather<S> {
    pub(super) fn new(stream: S, clock: Arc<dyn Clock>) -> Self {
        Self {
            stream,
            clock,
            waiting: BytesMut::new(),
            has_grown: false,
            put_off: 0,
            pong: None,
        }
    }

    /// Puts an answer to a ping aside, if that is all that is written. All is taken as it is written, so this
    /// begins where a frame does.
    fn puts_aside(&mut self, bytes: &[u8]) -> bool {
        let Ok(frame) = <[u8; PONG_BYTES]>::try_from(bytes) else {
            return false;
        };
        if self.pong.is_some() || !frame.starts_with(&PONG_HEAD) {
            return false;
        }
        let clock = Arc::clone(&self.clock);
        let pause = Box::pin(async move { clock.sleep(PONG_PAUSE).await });
        self.pong = Some(Pong { frame, pause });
        true
    }

    /// Takes up an answer to a ping once it has waited.
    fn take_up(&mut self, context: &mut Context<'_>) {
        if let Some(Pong { frame, pause }) = &mut self.pong
            && pause.as_mut().poll(context).is_ready()
        {
            self.waiting.extend_from_slice(frame);
            self.pong = None;
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
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
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
        if let [pong] = all
            && self.puts_aside(pong)
        {
            return Poll::Ready(Ok(length));
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
        self.take_up(context);
        let has_grown = mem::take(&mut self.has_grown);
        if has_grown && self.waiting.len() < ENOUGH_BYTES && self.put_off < MAX_PUT_OFF {
            // Whoever was woken by what was just written comes first.
            self.put_off += 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.drain(context))?;
        self.put_off = 0;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures::future::poll_fn;
    use futures::task::noop_waker;
    use tokio::io::{AsyncWrite, AsyncWriteExt as _};

    use super::{ENOUGH_BYTES, Gather, MAX_PUT_OFF, PONG_BYTES, PONG_HEAD};
    use crate::clock::SystemClock;

    fn gather() -> Gather<Vec<u8>> {
        Gather::new(Vec::new(), SystemClock::shared())
    }

    fn pong(of: u8) -> [u8; PONG_BYTES] {
        let mut pong = [of; PONG_BYTES];
        pong[..PONG_HEAD.len()].copy_from_slice(&PONG_HEAD);
        pong
    }

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
        let mut gather = gather();
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
        let mut gather = gather();
        let large = vec![1; ENOUGH_BYTES];
        write(&mut gather, b"head");
        write(&mut gather, &large);
        assert!(is_flushed(&mut gather));
        assert_eq!(gather.stream.len(), 4 + ENOUGH_BYTES);
        assert_eq!(gather.stream[..4], *b"head");
        write(&mut gather, &large);
        write(&mut gather, b"tail");
        assert_eq!(gather.stream.len(), 4 + 2 * ENOUGH_BYTES, "no more is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_a_ping_waits_and_holds_up_nothing() {
        let mut gather = gather();
        write(&mut gather, &pong(1));
        assert!(is_flushed(&mut gather), "nothing has to leave");
        assert!(gather.stream.is_empty());
        write(&mut gather, b"call");
        assert!(!is_flushed(&mut gather), "more may follow");
        assert!(is_flushed(&mut gather));
        assert_eq!(gather.stream, b"call");
        poll_fn(|context| {
            let flushed = Pin::new(&mut gather).poll_flush(context);
            assert!(matches!(flushed, Poll::Ready(Ok(()))));
            match gather.stream.len() {
                4 => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })
        .await;
        assert_eq!(gather.stream[4..], pong(1), "it comes all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn a_further_answer_to_a_ping_does_not_wait_and_nothing_else_is_put_aside() {
        let mut gather = gather();
        let mut ask = pong(3);
        ask[4] = 0;
        for frame in [pong(1), pong(2), ask] {
            write(&mut gather, &frame);
        }
        assert!(!is_flushed(&mut gather));
        assert!(is_flushed(&mut gather));
        assert_eq!(gather.stream, [pong(2), ask].concat());
    }

    #[test]
    fn who_writes_again_and_again_is_sent_all_the_same() {
        let mut gather = gather();
        let turns = (0..).take_while(|_| {
            write(&mut gather, b"frame");
            !is_flushed(&mut gather)
        });
        let turns = u32::try_from(turns.count()).unwrap();
        assert_eq!(turns, MAX_PUT_OFF);
        assert_eq!(gather.stream, b"frame".repeat(5));
    }

    /// Takes three bytes every other time.
    #[derive(Debug, Default)]
    struct Slow {
        taken: Vec<u8>,
        is_tired: bool,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.is_tired = !self.is_tired;
            if self.is_tired {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            let some = &bytes[..bytes.len().min(3)];
            self.taken.extend_from_slice(some);
            Poll::Ready(Ok(some.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_slow_connection_gets_all_of_it_in_order_and_before_its_end() {
        let mut gather = Gather::new(Slow::default(), SystemClock::shared());
        let sent: Vec<u8> = (0..=255).cycle().take(3 * ENOUGH_BYTES + 77).collect();
        for part in sent.chunks(1000) {
            gather.write_all(part).await.unwrap();
        }
        gather.flush().await.unwrap();
        gather.write_all(b"and the end").await.unwrap();
        gather.shutdown().await.unwrap();
        let (all, end) = gather.stream.taken.split_at(sent.len());
        assert!(all == sent, "in order");
        assert_eq!(end, b"and the end");
    }
}
