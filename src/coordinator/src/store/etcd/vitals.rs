//! What a member of etcd says of itself.

use etcd_client::{AlarmAction, AlarmType, Error, MaintenanceClient};

use tonic::Code;

use super::version::Version;

/// What one member has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vitals {
    pub(super) cluster: u64,
    /// As it writes it.
    pub(super) version: String,
    pub(super) leads: bool,
    /// It does not vote, and takes neither writes nor streams.
    pub(super) is_learner: bool,
    pub(super) alarms: Alarms,
}

/// The alarms of the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Alarms {
    /// No space is left on some member: etcd takes no more data.
    pub(super) is_full: bool,
    /// The members differ in what they hold.
    pub(super) is_corrupt: bool,
}

impl Vitals {
    /// Asks a member. It answers by itself, unless an alarm is on.
    pub(super) async fn of(maintenance: &mut MaintenanceClient) -> Result<Self, Error> {
        let status = maintenance.status().await?;
        let header = status.header();
        let member = header.map(etcd_client::ResponseHeader::member_id);
        // Besides alarms it counts as an error that nobody leads.
        let alarms = match status.leader() != 0 && !status.errors().is_empty() {
            true => Alarms::of(maintenance).await,
            false => Alarms::default(),
        };
        Ok(Self {
            cluster: header.map_or(0, etcd_client::ResponseHeader::cluster_id),
            version: status.version().to_owned(),
            leads: member == Some(status.leader()),
            is_learner: status.is_learner(),
            alarms,
        })
    }

    pub(super) fn version(&self) -> Option<Version> {
        self.version.parse().ok()
    }
}

/// Whether etcd keeps its status from everybody but its administrator.
pub(super) fn is_secret(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else {
        return false;
    };
    matches!(
        status.code(),
        Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
    )
}

impl Alarms {
    /// Which alarms are on, given that some are.
    async fn of(maintenance: &mut MaintenanceClient) -> Self {
        let listed = maintenance
            .alarm(AlarmAction::Get, AlarmType::None, None)
            .await;
        let Ok(listed) = listed else {
            // Some versions tell their administrator only. A corrupt etcd refuses everything by itself.
            return Self {
                is_full: true,
                is_corrupt: false,
            };
        };
        let is_on = |kind| listed.alarms().iter().any(|alarm| alarm.alarm() == kind);
        Self {
            is_full: is_on(AlarmType::Nospace),
            is_corrupt: is_on(AlarmType::Corrupt),
        }
    }
}
