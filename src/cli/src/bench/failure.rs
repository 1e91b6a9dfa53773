use std::fmt;

use tonic::{Code, Status};

use crate::failure::{Failure, Kind};
use crate::table::plain;

pub(super) fn unreachable(message: impl Into<String>) -> Failure {
    Failure::new(Kind::Unreachable, message)
}

/// The coordinator refused a call or ended a stream.
pub(super) fn refused(what: impl fmt::Display, status: &Status) -> Failure {
    refused_with(what, status.code(), status.message())
}

pub(super) fn refused_with(what: impl fmt::Display, code: Code, message: &str) -> Failure {
    let kind = match code {
        Code::Unavailable => Kind::Unreachable,
        _ => Kind::Other,
    };
    Failure::new(kind, format!("{what}: {} ({code:?})", plain(message)))
}

pub(super) fn etcd_failed(error: &etcd_client::Error) -> Failure {
    let kind = match error {
        etcd_client::Error::TransportError(_) | etcd_client::Error::IoError(_) => Kind::Unreachable,
        etcd_client::Error::GRpcStatus(status) if status.code() == Code::Unavailable => {
            Kind::Unreachable
        }
        _ => Kind::Other,
    };
    Failure::new(kind, format!("etcd: {}", plain(&error.to_string())))
}
