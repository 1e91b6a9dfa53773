//! The bearer token that goes with each call, where coordinators ask for one.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::error::ClientError;

/// The longest token, in bytes: coordinators take headers of 16 KiB at most.
const MAX_TOKEN_BYTES: usize = 4096;

/// Adds the token of now to what is sent. A clone is the same.
#[derive(Clone, Default)]
pub(crate) struct Bearer {
    header: Arc<RwLock<Option<MetadataValue<Ascii>>>>,
}

impl Bearer {
    pub(crate) fn set(&self, token: &str) -> Result<(), ClientError> {
        let refuse = || {
            let bound = format!("1 to {MAX_TOKEN_BYTES} visible ASCII characters");
            ClientError::invalid("bearer_token", bound, format!("{} bytes", token.len()))
        };
        let is_visible = token.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_visible || !(1..=MAX_TOKEN_BYTES).contains(&token.len()) {
            return Err(refuse());
        }
        let header = MetadataValue::try_from(format!("Bearer {token}"));
        let mut header = header.map_err(|_| refuse())?;
        header.set_sensitive(true);
        *self.header.write().unwrap_or_else(PoisonError::into_inner) = Some(header);
        Ok(())
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = self.header.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(header) = &*header {
            let metadata = request.metadata_mut();
            metadata.insert("authorization", header.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Bearer")
    }
}

#[cfg(test)]
mod tests {
    use tonic::Request;
    use tonic::service::Interceptor;

    use super::Bearer;

    #[test]
    fn the_token_of_now_goes_with_each_call_and_is_not_shown() {
        let bearer = Bearer::default();
        let mut sending = bearer.clone();
        let mut sent = || {
            let request = sending.call(Request::new(())).unwrap();
            assert!(!format!("{request:?}").contains("hunter"));
            let header = request.metadata().get("authorization");
            header.map(|header| header.to_str().unwrap().to_owned())
        };
        assert_eq!(sent(), None);
        bearer.set("hunter1").unwrap();
        assert_eq!(sent().as_deref(), Some("Bearer hunter1"));
        bearer.set("hunter2").unwrap();
        assert_eq!(sent().as_deref(), Some("Bearer hunter2"));
        for bad in ["", "a b", "a\n", "ä", &"x".repeat(4097)] {
            let error = bearer.set(bad).unwrap_err().to_string();
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
        assert_eq!(sent().as_deref(), Some("Bearer hunter2"));
        assert!(!format!("{bearer:?}").contains("hunter"));
    }
}
