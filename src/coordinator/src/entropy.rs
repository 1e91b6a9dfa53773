//! The one place where the coordinator gets random numbers.

use std::fmt;
use std::sync::Arc;

use crate::domain::Nonce;

/// Where random numbers come from.
pub trait Entropy: fmt::Debug + Send + Sync + 'static {
    /// A nonce that was never made before.
    fn nonce(&self) -> Nonce;
}

/// The operating system's random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl SystemEntropy {
    /// The system's random numbers, as an injectable whole.
    #[must_use]
    pub fn shared() -> Arc<dyn Entropy> {
        Arc::new(Self)
    }
}

impl Entropy for SystemEntropy {
    fn nonce(&self) -> Nonce {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system always has random numbers");
        Nonce::from_bytes(bytes)
    }
}
