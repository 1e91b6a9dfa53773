//! No secret and no metadata is ever printed.

use palisade_api::v1::{
    AttachAcquire, AttachOpen, AttachRequest, CloseSessionRequest, OpenSessionRequest,
    ReleaseRequest, RenewSessionRequest, acquire_request, attach_open, attach_request,
};
use palisade_api::{AcquireRequest, AcquireResponse, Lease, SessionOpening, SessionRef};

/// As `{:?}` would print the bytes 0xA5 of a secret or of metadata.
const TELLTALE: [&str; 3] = ["165", "a5", "\\xa5"];

fn session() -> SessionRef {
    SessionRef {
        session_id: "0123".into(),
        secret: vec![0xA5; 16],
        epoch: 1,
    }
}

fn opening() -> SessionOpening {
    SessionOpening {
        open_id: "o".into(),
        secret: vec![0xA5; 16],
        ..SessionOpening::default()
    }
}

#[test]
fn neither_secret_nor_metadata_is_printed() {
    let metadata = vec![0xA5; 16];
    let lease = Lease {
        metadata: metadata.clone(),
        ..Lease::default()
    };
    let acquire = |owner| AcquireRequest {
        owner: Some(owner),
        metadata: metadata.clone(),
        ..AcquireRequest::default()
    };
    let attach = |message| AttachRequest {
        seq: 1,
        message: Some(message),
    };
    let opens = OpenSessionRequest {
        opening: Some(opening()),
    };
    let printed = [
        format!("{opens:?}"),
        format!(
            "{:?}",
            RenewSessionRequest {
                session: Some(session()),
                ..RenewSessionRequest::default()
            }
        ),
        format!(
            "{:?}",
            CloseSessionRequest {
                session: Some(session())
            }
        ),
        format!(
            "{:?}",
            ReleaseRequest {
                session: Some(session()),
                ..ReleaseRequest::default()
            }
        ),
        format!("{:?}", acquire(acquire_request::Owner::Session(session()))),
        format!("{:?}", acquire(acquire_request::Owner::Opening(opening()))),
        format!(
            "{:?}",
            AcquireResponse {
                lease: Some(lease),
                ..AcquireResponse::default()
            }
        ),
        format!(
            "{:?}",
            attach(attach_request::Message::Acquire(AttachAcquire {
                metadata: metadata.clone(),
                ..AttachAcquire::default()
            }))
        ),
        format!(
            "{:?}",
            attach(attach_request::Message::Open(AttachOpen {
                owner: Some(attach_open::Owner::Opening(opening())),
                open_requests: Vec::new(),
            }))
        ),
    ];
    for text in printed {
        assert!(text.contains("(16 bytes)"), "{text}");
        for telltale in TELLTALE {
            assert!(!text.contains(telltale), "{text}");
        }
    }
}
