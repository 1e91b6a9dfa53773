#[path = "../../examples/payments.rs"]
mod payments;

use crate::db::Db;

/// Of eight orders one is declined; each other is charged once, whatever the provider and the cashiers do.
#[tokio::test]
async fn payments_are_charged_once() {
    let db = Db::empty().await;
    for _ in 0..2 {
        let report = payments::run(&db.url).await.unwrap();
        assert_eq!((report.paid, report.declined), (7, 1), "{report:?}");
        assert_eq!(report.charges, 7, "{report:?}");
        assert_eq!(report.most_changes_of_an_order, 1, "{report:?}");
        assert_eq!(report.taken_over, 1, "{report:?}");
        assert!(report.zombie_was_refused, "{report:?}");
        // It did fail, and was asked again.
        assert!(report.calls > 10, "{report:?}");
    }
}
