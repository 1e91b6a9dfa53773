//! Many who wait for one resource.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::store::Switch;
use crate::support::{
    Coordinator, LONG, acquire, asking, get, memory, open, release, settings, token,
};

const CROWD: u32 = 1000;
const HOUR: Duration = Duration::from_secs(3600);

/// I11, at the size that is promised; and a hand-over wakes one call, not all of them.
#[tokio::test]
async fn a_thousand_are_served_in_the_order_in_which_they_came() {
    let mut settings = settings();
    settings.timeouts.sweep = HOUR;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let holder = open(client, "holder").await;
    let first = acquire(client, asking(&holder, "r", "x", Duration::ZERO)).await;
    let first = token(&first.unwrap());

    let (served, mut order) = mpsc::unbounded_channel();
    for number in 0..CROWD {
        let session = open(client, &format!("s{number}")).await;
        let (own, served) = (client.clone(), served.clone());
        tokio::spawn(async move {
            let granted = acquire(&own, asking(&session, "r", "x", HOUR)).await;
            let token = token(&granted.unwrap());
            served.send((number, token)).unwrap();
            release(&own, &session, "x", token).await;
        });
        // Asked without pause: a thousand pauses would be most of this test.
        let queued = async { while get(client, "x").await.waiters != number + 1 {} };
        palisade_test_support::within("the next is queued", LONG, queued)
            .await
            .unwrap();
    }
    // The first who waits has it looked after; those behind add nothing.
    let promotions = coordinator.store.promotions.load(Ordering::Relaxed);
    assert!((1..=2).contains(&promotions), "{promotions} promotions");
    let looks = coordinator.store.looks.load(Ordering::Relaxed);
    release(client, &holder, "x", first).await;

    let mut last = first;
    for expected in 0..CROWD {
        let next = palisade_test_support::within("the next is served", LONG, order.recv());
        let (number, token) = next.await.unwrap().unwrap();
        assert_eq!(number, expected);
        assert!(token > last, "tokens grow (I3)");
        last = token;
    }
    let looks = coordinator.store.looks.load(Ordering::Relaxed) - looks;
    let crowd = usize::try_from(CROWD).unwrap();
    assert!(looks <= 2 * crowd, "{looks} looks for {crowd} hand-overs");
    coordinator.stop().await;
}
