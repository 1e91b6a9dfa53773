//! Traces over OTLP, where the environment says where to: the variables are OpenTelemetry's own.

#[cfg(feature = "otlp")]
mod otlp;

use std::env;

use palisade_coordinator::serve::Server;

use crate::failure::Failure;

/// The variables that name a collector.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];

/// What sends the traces of one coordinator.
pub(crate) struct Export {
    #[cfg(feature = "otlp")]
    exporter: otlp::Exporter,
}

impl Export {
    /// None where the environment asks for no traces, or this build has none.
    pub(crate) fn start() -> Result<Option<Self>, Failure> {
        if !is_asked() {
            return Ok(None);
        }
        #[cfg(feature = "otlp")]
        return otlp::Exporter::start().map(|exporter| Some(Self { exporter }));
        #[cfg(not(feature = "otlp"))]
        {
            tracing::warn!("no traces are exported: this build is without the feature `otlp`");
            Ok(None)
        }
    }

    /// The server, telling of its calls.
    pub(crate) fn of(&self, server: Server) -> Server {
        #[cfg(feature = "otlp")]
        return server.with_traces(self.exporter.traces());
        #[cfg(not(feature = "otlp"))]
        server
    }

    /// Sends what is left, within a bound.
    pub(crate) fn end(self) -> impl Future<Output = ()> {
        #[cfg(feature = "otlp")]
        return self.exporter.end();
        #[cfg(not(feature = "otlp"))]
        std::future::ready(())
    }
}

fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

fn is_asked() -> bool {
    let is_disabled = set("OTEL_SDK_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true"));
    let is_elsewhere = set("OTEL_TRACES_EXPORTER").is_some_and(|it| it != "otlp");
    !is_disabled && !is_elsewhere && ENDPOINTS.into_iter().any(|name| set(name).is_some())
}
