//! Protocol Buffers on the wire, with small buffers: a stream that says little must cost little.

use std::fmt;
use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What a call or stream allocates for each direction before it has said anything, in bytes: most messages
/// fit, and tens of thousands of idle streams stay small. Buffers grow with what is sent.
const BUFFER_BYTES: usize = 512;
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
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(settings())
    }
}
