use clap::Args;

use crate::units::{TimeStyle, Times};

/// How points of time look in tables.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct TimeArgs {
    /// How times are shown: by default relative on a terminal, else iso. In JSON they are numbers, `..._unix_ms`
    #[arg(
        long,
        value_name = "relative|iso",
        value_enum,
        hide_possible_values = true
    )]
    time: Option<TimeStyle>,
}

impl TimeArgs {
    pub(crate) fn times(self) -> Times {
        Times::new(self.time)
    }
}
