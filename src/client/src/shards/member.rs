//! Who is a member.

use palisade_token::ResourceName;

use crate::error::ClientError;
use crate::info::LeaseInfo;
use crate::random::Random;

/// What a shard's lease has in its metadata, before its member's id.
const METADATA: &str = "palisade shard member ";

/// One instance, as long as it runs: 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct MemberId(u128);

impl MemberId {
    /// Its name is as long as that of any.
    pub(super) const LONGEST: Self = Self(u128::MAX);

    pub(super) fn random(random: &Random) -> Self {
        Self(u128::from_le_bytes(random.bytes()))
    }

    fn parse(text: &str) -> Option<Self> {
        let ours = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(text, 16)
            .ok()
            .filter(|_| ours)
            .map(Self)
    }

    /// What it shows itself with: a lease below `prefix`.
    pub(super) fn lease(self, prefix: &str) -> Result<ResourceName, ClientError> {
        let name = format!("{prefix}{:032x}", self.0);
        ResourceName::new(&name).map_err(|error| {
            let bound = format!("room for the members' names: {error}");
            ClientError::invalid("group", bound, name)
        })
    }

    /// Whose lease this is, if it is a member's.
    pub(super) fn showing(lease: &LeaseInfo, prefix: &str) -> Option<Self> {
        let name = lease.grant.resource.as_str();
        Self::parse(name.strip_prefix(prefix)?)
    }

    pub(super) fn metadata(self) -> String {
        format!("{METADATA}{:032x}", self.0)
    }

    /// Who holds a shard.
    pub(super) fn holding(lease: &LeaseInfo) -> Option<Self> {
        let metadata = std::str::from_utf8(&lease.metadata.0).ok()?;
        Self::parse(metadata.strip_prefix(METADATA)?)
    }
}
