use super::{ClientError, Later, Unavailable, after};
use crate::standing::LostReason;

#[test]
fn only_what_is_decided_is_over() {
    let source = || "told by nobody".into();
    for (error, later) in [
        (ClientError::invalid("resource", "", ""), Later::Over),
        (ClientError::FenceAhead { fence: None }, Later::Over),
        (
            ClientError::StaleToken {
                presented: None,
                current: None,
            },
            Later::Over,
        ),
        (
            ClientError::SessionLost {
                reason: LostReason::Ended,
            },
            Later::Over,
        ),
        (
            ClientError::Unavailable {
                cause: Unavailable::Store,
                may_have_happened: false,
                retry_after: None,
                source: None,
            },
            Later::Soon,
        ),
        (
            ClientError::Denied {
                may_have_happened: false,
                source: source(),
            },
            Later::Perhaps,
        ),
        (ClientError::Unexpected { source: source() }, Later::Perhaps),
        (ClientError::NotServed, Later::Perhaps),
    ] {
        assert_eq!(after(&error), later, "{error:?}");
    }
}
