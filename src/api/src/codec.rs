//! Protocol Buffers on the wire, with small buffers: a stream that says little must cost little.

use std::fmt;
use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

/// What a call or stream allocates for each direction before it has said anything, in bytes: what a session says
/// to stay alive fits, and tens of thousands of idle streams stay small. Buffers grow with what is sent.
const BUFFER_BYTES: usize = 128;
/// So many bytes of messages that are ready are sent as one piece.
const PIECE_BYTES: usize = 32 * 1024;

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, PIECE_BYTES)
}

/// As `tonic_prost::ProstCodec`, which takes 8 KiB for each direction of each call.
pub(crate) struct LeanCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> fmt::Debug for LeanCodec<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeanCodec")
    }
}

impl<T, U> Default for LeanCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for LeanCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = LeanEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        LeanEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(settings())
    }
}

/// Makes room for each message at once, instead of step by step while it is written.
pub(crate) struct LeanEncoder<T>(PhantomData<T>);

impl<T> fmt::Debug for LeanEncoder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeanEncoder")
    }
}

impl<T: Message> Encoder for LeanEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message
            .encode(buffer)
            .map_err(|_| Status::internal("a message is larger than memory"))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}
