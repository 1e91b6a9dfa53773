//! What a member sees: who is there, and who holds what.

use super::Shards;
use super::member::MemberId;
use crate::client::Client;
use crate::error::ClientError;
use crate::info::LeaseInfo;

/// The largest page that coordinators give.
const PAGE: u16 = 1000;
/// All shards and as many members, and once more what others hold below the same beginning.
const MAX_PAGES: usize = 32;

/// Who holds a shard, as its lease says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    Nobody,
    By(MemberId),
    /// By no member.
    Foreign,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) members: Vec<MemberId>,
    pub(super) held: Vec<Held>,
}

/// Looks. The pages are of different revisions: what moves meanwhile is seen as it was, or as it is, or
/// twice. It is an impression to plan by and no more.
pub(super) async fn look(client: Client, shards: Shards) -> Result<View, ClientError> {
    let mut view = View {
        members: Vec::new(),
        held: vec![Held::Nobody; shards.names.len()],
    };
    let mut pages = 0;
    for prefix in prefixes(&shards) {
        let mut next: Option<String> = None;
        loop {
            pages += 1;
            if pages > MAX_PAGES {
                return Err(ClientError::LimitReached {
                    limit: "shardPages".to_owned(),
                    bound: format!("{MAX_PAGES} pages of leases below {prefix:?}"),
                    may_have_happened: false,
                    retry_after: None,
                });
            }
            let page = client.list_leases(&prefix, PAGE, next.as_deref()).await?;
            for lease in &page.leases {
                view.add(&shards, lease);
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
    }
    Ok(view)
}

impl View {
    fn add(&mut self, shards: &Shards, lease: &LeaseInfo) {
        if let Some(member) = MemberId::showing(lease, &shards.members) {
            self.members.push(member);
        } else if let Some(number) = shards.numbers.get(lease.grant.resource.as_str())
            && let Some(held) = self.held.get_mut(*number)
        {
            *held = MemberId::holding(lease).map_or(Held::Foreign, Held::By);
        }
    }
}

/// What the names of all shards and members begin with: one beginning where they have a good one in common.
fn prefixes(shards: &Shards) -> Vec<String> {
    let mut names = shards.names.iter();
    let mut common = names.next().map(ToString::to_string).unwrap_or_default();
    for name in names {
        let name = name.as_str().bytes();
        let same = name.zip(common.bytes()).take_while(|(a, b)| a == b).count();
        // Names are ASCII.
        common.truncate(same);
    }
    if shards.members.starts_with(&common) {
        return vec![common];
    }
    vec![common, shards.members.clone()]
}
