//! The rows of the fault matrix (FAULTS.md).

use std::time::Duration;

use crate::report::Row;

#[test]
fn a_line_is_written() {
    Row {
        fault: "none",
        test: "faults::a_line_is_written",
        operations: 0,
        unknown: 0,
        violations: 0,
        recovery: vec![Duration::ZERO],
    }
    .write();
}
