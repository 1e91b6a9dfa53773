//! What `palisade run` and its guardian tell each other, as lines of JSON over a pair of sockets: one end is the
//! guardian's stdin, and what is to be the command's stdin comes first.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;

use super::group::Exit;
use super::watch::Why;

/// Said to the guardian. Moments are nanoseconds on `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// The lease was renewed.
    Deadline(u64),
    /// End the group, and kill it then.
    Stop(u64),
}

/// Said by the guardian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The group with this id was started.
    Started(i32),
    /// Its leader was stopped by this signal.
    Stopped(i32),
    /// It is being ended.
    Ending(Why),
    /// Nobody of it is left.
    Ended {
        exit: Exit,
        why: Option<Why>,
        /// How many processes that left the group go on.
        strays: usize,
    },
}

/// One end.
#[derive(Debug)]
pub(crate) struct Wire {
    lines: Lines<BufReader<UnixStream>>,
    /// The same socket, for what is said without waiting for the runtime to have seen that it can be.
    to: StdStream,
}

impl Wire {
    fn over(socket: StdStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let to = socket.try_clone()?;
        Ok(Self {
            lines: BufReader::new(UnixStream::from_std(socket)?).lines(),
            to,
        })
    }

    /// The end here, and the one for the guardian's stdin.
    pub(crate) fn pair(stdin: BorrowedFd<'_>) -> io::Result<(Self, OwnedFd)> {
        let (here, there) = StdStream::pair()?;
        let stdin = [stdin];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        if !rights.push(SendAncillaryMessage::ScmRights(&stdin)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        sendmsg(
            &here,
            &[IoSlice::new(b"\n")],
            &mut rights,
            SendFlags::NOSIGNAL,
        )?;
        Ok((Self::over(here)?, there.into()))
    }

    /// In the guardian: its end, and what is to be the command's stdin.
    pub(crate) fn of_stdin() -> io::Result<(Self, OwnedFd)> {
        let socket = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0_u8];
        let mut bytes = [IoSliceMut::new(&mut byte)];
        recvmsg(&socket, &mut bytes, &mut rights, RecvFlags::CMSG_CLOEXEC)?;
        let stdin = rights.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut passed) => passed.next(),
            _ => None,
        });
        let stdin = stdin.ok_or(io::ErrorKind::InvalidInput)?;
        Ok((Self::over(socket)?, stdin))
    }

    /// Says it without waiting: a message is short, and taken whole or not at all. An error where the other end
    /// is gone or has not listened for hundreds of messages.
    pub(crate) fn tell(&self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        match send(&self.to, &line, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)? {
            written if written == line.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// What the other end says next; none once it is gone, or talks nonsense.
    pub(crate) async fn hear<M: DeserializeOwned>(&mut self) -> Option<M> {
        let line = self.lines.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream as StdStream;

    use super::{Exit, Order, Report, Why, Wire};

    #[tokio::test]
    async fn both_ends_hear_each_other_until_one_is_gone() {
        let nothing = File::open("/dev/null").unwrap();
        let (mut here, there) = Wire::pair(nothing.as_fd()).unwrap();
        let mut there = Wire::over(StdStream::from(there)).unwrap();
        let ended = Report::Ended {
            exit: Exit::Signal(9),
            why: Some(Why::Deadline),
            strays: 2,
        };
        there.tell(&ended).unwrap();
        assert_eq!(here.hear().await, Some(ended));
        here.tell(&Order::Deadline(7)).unwrap();
        drop(here);
        // What the passed descriptor came with is an empty line.
        assert_eq!(there.hear::<Order>().await, None);
        assert_eq!(there.hear().await, Some(Order::Deadline(7)));
        assert_eq!(there.hear::<Order>().await, None);
    }
}
